"""`benchmarks.overload`: what its verdict takes for a failure. Never how fast anything is."""

from __future__ import annotations

import pytest

from benchmarks.overload import Seen, checks_of, figures_of


def seen() -> Seen:
    """Two accepted, one refused, memory as it was."""
    answers = [("small", "200", 0.1), ("large", "200", 0.3), ("small", "429", 0.001)]
    return Seen(answers, 0, [(0.0, 100.0), (1.0, 100.0), (2.0, 100.0), (3.0, 100.0)])


def failed(found: Seen, back_s: float = 0.5) -> list[str]:
    checks = checks_of(figures_of(found, 0.01, back_s), deadline_s=2.0)
    assert len(checks) == 8
    return [name for name, held in checks.items() if not held]


def test_what_went_well_is_held() -> None:
    assert failed(seen()) == []
    assert failed(seen(), back_s=1.5) == ["back to 10.0 ms within 1.50 s <= 1 s"]


@pytest.mark.parametrize(
    ("index", "answer", "says"),
    [
        (2, ("small", "200", 0.1), ["some were refused"]),  # no overload: the rest would hold of itself
        (2, ("small", "503", 0.001), ["no 5xx", "some were refused"]),
        (2, ("small", "429", 0.06), ["refused in 60.0 ms <= 50 at the median"]),
        (1, ("large", "200", 2.5), ["accepted p99 2.50 s <= 2 s"]),
    ],
)
def test_what_did_not_is_named(index: int, answer: tuple[str, str, float], says: list[str]) -> None:
    found = seen()
    found.answers[index] = answer
    assert failed(found) == says


def test_broken_connections_and_growing_memory_are_named() -> None:
    found = seen()
    found.broken = 1
    assert failed(found) == ["no broken connection"]
    found = seen()
    found.memory[-1] = (3.0, 126.0)
    assert failed(found) == ["memory flat: 100 MiB after a third, 126 at the end"]
    found = seen()
    found.answers = found.answers[2:]
    assert failed(found) == ["some were accepted", "accepted p99 inf s <= 2 s"]
