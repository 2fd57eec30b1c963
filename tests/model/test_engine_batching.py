"""Sizes of batches and slots: every image once, in order, no part larger than what is ready, no slot held twice."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engines.batching import BatchSizes, Part, Slots


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (64, (1, 2, 4, 8, 16, 32, 64)), (65, (1, 2, 4, 8, 16, 32, 64, 65))],
)
def test_doubling_ends_at_the_limit(limit: int, sizes: tuple[int, ...]) -> None:
    assert BatchSizes.doubling(limit).sizes == sizes
    assert BatchSizes.doubling(limit).largest == limit


@given(st.integers(1, 100), st.integers(0, 400))
def test_padded_takes_every_image_once_and_never_doubles_the_work(limit: int, count: int) -> None:
    sizes = BatchSizes.doubling(limit)
    parts = list(sizes.padded(count))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(count))
    assert len(parts) == -(-count // limit)
    for part in parts:
        assert part.size in sizes.sizes
        assert part.stop - part.start <= part.size < 2 * (part.stop - part.start)


@given(st.sets(st.integers(2, 40), max_size=3), st.integers(0, 200))
def test_exact_takes_every_image_once_without_padding(sizes: set[int], count: int) -> None:
    parts = list(BatchSizes({1, *sizes}).exact(count))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(count))
    assert all(part.stop - part.start == part.size for part in parts)
    assert [part.size for part in parts] == sorted((part.size for part in parts), reverse=True)


def test_both_ways_by_example() -> None:
    sizes = BatchSizes({1, 8})
    assert list(sizes.padded(9)) == [Part(0, 8, 8), Part(8, 9, 1)]
    assert list(sizes.padded(3)) == [Part(0, 3, 8)]
    assert list(sizes.exact(10)) == [Part(0, 8, 8), Part(8, 9, 1), Part(9, 10, 1)]


def test_sizes_that_cannot_be() -> None:
    for sizes in ((), (0, 1)):
        with pytest.raises(ValueError, match="at least one, each 1 or more"):
            BatchSizes(sizes)
    with pytest.raises(ValueError, match=r"a batch of 3 is not made of \(2,\)"):
        list(BatchSizes({2}).exact(3))


def test_a_slot_is_held_once_and_given_back_also_after_a_failure() -> None:
    slots = Slots(["a", "b"])
    with slots.hold() as first, slots.hold() as second:
        assert {first, second} == {"a", "b"}
        waiting = threading.Event()
        got: list[str] = []

        def third() -> None:
            waiting.set()
            with slots.hold() as slot:
                got.append(slot)

        thread = threading.Thread(target=third)
        thread.start()
        assert waiting.wait(30)
        thread.join(0.05)
        assert got == []
    thread.join(30)
    assert got
    for _ in range(3):
        with pytest.raises(RuntimeError, match="lost"), slots.hold():
            raise RuntimeError("lost")
    with slots.hold() as first, slots.hold() as second:
        assert {first, second} == {"a", "b"}
