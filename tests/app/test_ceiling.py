"""The largest batch that fits: learned from failures, and tried again ever more rarely."""

from __future__ import annotations

import pytest

from app.ceiling import Ceiling


@pytest.mark.parametrize(("failed", "now"), [(8, 4), (7, 3), (5, 2), (2, 1), (1, 1)])
def test_half_of_what_did_not_fit(failed: int, now: int) -> None:
    ceiling = Ceiling(8)
    ceiling.failed(failed)
    assert ceiling.now == now


def test_two_streams_that_fail_together_count_once() -> None:
    ceiling = Ceiling(8)
    ceiling.failed(8)
    ceiling.failed(8)
    assert ceiling.now == 4


def went(ceiling: Ceiling, size: int, times: int) -> None:
    for _ in range(times):
        ceiling.fitted(size)


def test_it_rises_again_after_enough_full_batches_and_no_higher_than_it_was() -> None:
    ceiling = Ceiling(6, patience=3)
    ceiling.failed(6)
    went(ceiling, 2, 100)  # smaller ones prove nothing
    went(ceiling, 3, 2)
    assert ceiling.now == 3
    went(ceiling, 3, 1)
    assert ceiling.now == 6
    went(ceiling, 6, 100)
    assert ceiling.now == 6


def probes(ceiling: Ceiling, batches: int) -> int:
    """How often it is tried in vain where only batches of 4 fit."""
    found = 0
    for _ in range(batches):
        if ceiling.now > 4:
            ceiling.failed(ceiling.now)
            found += 1
        else:
            ceiling.fitted(4)
    return found


def test_probes_that_fail_become_rare() -> None:
    ceiling = Ceiling(8, patience=4)
    ceiling.failed(8)
    assert probes(ceiling, 5000) == 10  # 4 + 8 + 16 + ... batches
    assert ceiling.now == 4


def test_a_probe_that_went_well_leaves_it_as_patient_as_it_was() -> None:
    ceiling = Ceiling(8, patience=4)
    for _ in range(5):
        ceiling.failed(8)  # a neighbour takes the memory, and gives it back
        went(ceiling, 4, 4)
        assert ceiling.now == 8
        went(ceiling, 8, 1)
