"""How far many images are, told or drawn."""

from __future__ import annotations

import pytest

from app.client_progress import shown


@pytest.mark.parametrize(("images", "total"), [([1, 2, 3], 3), (iter([1, 2, 3]), 3), ((n for n in range(3)), None), ([], None)])
def test_a_function_is_told(images: object, total: int | None) -> None:
    told: list[tuple[int, int | None]] = []
    with shown(lambda done, of: told.append((done, of)), images) as count:
        count()
        count()
    assert told == [(1, total), (2, total)]


def test_a_bar_is_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    with shown(True, range(2)) as count:
        count()
        count()
    out, drawn = capfd.readouterr()
    assert out == ""
    assert "2/2" in drawn


def test_nothing_is_drawn_unasked(capfd: pytest.CaptureFixture[str]) -> None:
    with shown(False, range(2)) as count:
        count()
    assert capfd.readouterr() == ("", "")
