"""Many at once: whatever each takes and whichever fails, everything comes, once, in order, and not too many are under way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.client_errors import ClientError, Overloaded, UnusableImage
from app.client_order import AHEAD, in_order, in_order_async

# (how long it takes in some small unit, whether it fails) of each item
COURSES = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40)


class Failed(ClientError):
    def __init__(self, number: int) -> None:
        super().__init__(str(number))
        self.number = number


def numbers(found: list[tuple[int, int | ClientError]]) -> list[tuple[int, bool, int]]:
    """(item, whether it failed, the number that came for it)."""
    return [(i, isinstance(r, Failed), r.number if isinstance(r, Failed) else int(str(r))) for i, r in found]


@given(COURSES, st.integers(1, 6))
@settings(deadline=None)
def test_order_is_kept_and_nothing_is_lost_in_tasks(courses: list[tuple[int, bool]], concurrency: int) -> None:
    under_way = most = 0

    async def ask(item: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(courses[item][0]):
            await asyncio.sleep(0)
        under_way -= 1
        if courses[item][1]:
            raise Failed(item)
        return item

    async def collect() -> list[tuple[int, int | ClientError]]:
        return [pair async for pair in in_order_async(range(len(courses)), ask, concurrency)]

    assert numbers(asyncio.run(collect())) == [(i, failed, i) for i, (_, failed) in enumerate(courses)]
    assert most <= concurrency


@given(COURSES, st.integers(1, 6))
@settings(deadline=None, max_examples=50)
def test_order_is_kept_and_nothing_is_lost_in_threads(courses: list[tuple[int, bool]], concurrency: int) -> None:
    under_way, lock, most = 0, threading.Lock(), 0

    def ask(item: int, left: threading.Event) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(courses[item][0] / 10_000)
        with lock:
            under_way -= 1
        if courses[item][1]:
            raise Failed(item)
        return item

    found = list(in_order(range(len(courses)), ask, concurrency))
    assert numbers(found) == [(i, failed, i) for i, (_, failed) in enumerate(courses)]
    assert most <= concurrency


def counted(taken: list[int]) -> Iterator[int]:
    for number in range(1000):
        taken.append(number)
        yield number


def test_items_are_taken_little_by_little_in_threads() -> None:
    taken: list[int] = []
    for item, _ in in_order(counted(taken), lambda item, left: item, 2):
        assert len(taken) <= item + 1 + AHEAD * 2
    assert len(taken) == 1000


async def test_items_are_taken_little_by_little_in_tasks() -> None:
    taken: list[int] = []

    async def ask(item: int) -> int:
        await asyncio.sleep(0)
        return item

    async for item, _ in in_order_async(counted(taken), ask, 2):
        assert len(taken) <= item + 1 + AHEAD * 2
    assert len(taken) == 1000


def test_a_result_comes_while_the_next_item_is_waited_for() -> None:
    """Items may come slowly, as lines somebody types: what is known by then is not held back until enough have come."""
    done = threading.Event()
    seen: list[int] = []

    def slowly() -> Iterator[int]:
        yield 0
        assert done.wait(5)
        time.sleep(0.05)  # for the thread that set it to end
        yield 1
        assert seen[:1] == [0]
        yield 2

    def ask(item: int, left: threading.Event) -> int:
        done.set()
        return item

    for item, _ in in_order(slowly(), ask, 4):
        seen.append(item)
    assert seen == [0, 1, 2]


def test_leaving_stops_the_rest_in_threads() -> None:
    asked, released = [], []

    def ask(item: int, left: threading.Event) -> int:
        asked.append(item)
        if item:
            released.append(left.wait(5))
        return item

    pairs = in_order(range(1000), ask, 3)
    assert next(pairs) == (0, 0)
    pairs.close()  # type: ignore[attr-defined]  # it is a generator
    assert all(released)
    assert len(asked) <= 4


async def test_leaving_stops_the_rest_in_tasks() -> None:
    asked, cancelled = [], []

    async def ask(item: int) -> int:
        asked.append(item)
        if item:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(item)
                raise
        return item

    async with aclosing(in_order_async(range(1000), ask, 3)) as pairs:
        assert await anext(pairs) == (0, 0)
        await asyncio.sleep(0)
    assert sorted([0, *cancelled]) == asked
    assert len(asked) <= 4


async def test_items_may_come_asynchronously() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(5):
            await asyncio.sleep(0)
            yield number

    async def ask(item: int) -> int:
        return -item

    assert [pair async for pair in in_order_async(items(), ask, 2)] == [(n, -n) for n in range(5)]


def test_an_error_kept_keeps_nothing_else() -> None:
    def ask(item: int, left: threading.Event) -> int:
        try:
            raise Overloaded("now")
        except Overloaded as error:
            failure = UnusableImage("x")
            failure.tries = 3
            raise failure from error

    ((_, error),) = in_order([0], ask, 1)
    assert isinstance(error, UnusableImage)
    assert error.__traceback__ is None
    assert error.tries == 3


def test_a_fault_of_the_program_is_not_taken_for_an_answer() -> None:
    def ask(item: int, left: threading.Event) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(in_order([0, 1], ask, 1))


async def test_nor_is_it_in_tasks() -> None:
    async def ask(item: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        [pair async for pair in in_order_async([0, 1], ask, 1)]
