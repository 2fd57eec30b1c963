"""Answers remembered, and questions asked once: nobody suffers from who asked before, with or after."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from app.results import Results
from tests.app.stepwise import settle


class Work:
    """Counts how often it is begun, and ends as it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self._ends: list[asyncio.Future[str]] = []

    async def __call__(self) -> str:
        self.begun += 1
        end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ends.append(end)
        try:
            return await end
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def end(self, value: str | BaseException = "row") -> None:
        """End the latest."""
        end = self._ends[-1]
        if isinstance(value, BaseException):
            end.set_exception(value)
        else:
            end.set_result(value)
        await settle()


async def never() -> str:
    raise AssertionError("it was known")


def results_of(entries: int = 10) -> Results[str, str]:
    return Results(entries, shared=ValueError)


async def asked(
    results: Results[str, str], work: Callable[[], Coroutine[Any, Any, str]], key: str = "a", times: int = 1
) -> list[asyncio.Task[tuple[str, bool]]]:
    tasks = [asyncio.create_task(results.ask(key, work)) for _ in range(times)]
    await settle()
    return tasks


async def known(results: Results[str, str], **values: str) -> None:
    for key, value in values.items():

        async def work(value: str = value) -> str:
            return value

        assert (await results.ask(key, work))[0] == value


async def test_what_is_known_is_not_worked_out_again() -> None:
    results = results_of()

    async def work() -> str:
        return "row"

    assert await results.ask("a", work) == ("row", True)
    assert await results.ask("a", never) == ("row", False)
    assert (len(results), results.in_flight) == (1, 0)


async def test_the_least_recently_asked_is_forgotten() -> None:
    results = results_of(2)
    await known(results, a="1", b="2")
    assert await results.ask("a", never) == ("1", False)
    await known(results, c="3")
    assert len(results) == 2
    assert await results.ask("a", never) == ("1", False)
    work = Work()
    (again,) = await asked(results, work, "b")
    await work.end("2")
    assert again.result() == ("2", True)


async def test_the_same_asked_at_once_runs_once() -> None:
    results, work = results_of(), Work()
    tasks = await asked(results, work, times=5)
    assert (work.begun, results.in_flight) == (1, 1)
    await work.end()
    assert [task.result() for task in tasks] == [("row", True)] + [("row", False)] * 4
    assert results.in_flight == 0


async def test_different_keys_have_nothing_to_do_with_each_other() -> None:
    results, one, two = results_of(), Work(), Work()
    (first,), (second,) = await asked(results, one, "a"), await asked(results, two, "b")
    await two.end("2")
    assert second.result() == ("2", True)
    assert not first.done()
    await one.end("1")
    assert first.result() == ("1", True)


async def test_who_asked_first_may_leave() -> None:
    results, work = results_of(), Work()
    first, second = await asked(results, work, times=2)
    first.cancel()
    await settle()
    assert first.cancelled()
    await work.end()
    assert second.result() == ("row", False)
    assert (work.begun, work.cancelled) == (1, 0)


async def test_who_asked_first_may_run_out_of_time() -> None:
    results, work = results_of(), Work()

    async def hurried() -> None:
        async with asyncio.timeout(0.01):
            await results.ask("a", work)

    first = asyncio.create_task(hurried())
    await settle()
    (second,) = await asked(results, work)
    with pytest.raises(TimeoutError):
        await first
    await work.end()
    assert second.result() == ("row", False)
    assert work.begun == 1


async def test_when_the_last_one_leaves_the_work_is_given_up() -> None:
    results, work = results_of(), Work()
    tasks = await asked(results, work, times=3)
    for task in tasks:
        assert work.cancelled == 0
        task.cancel()
        await settle()
    assert (work.cancelled, results.in_flight, len(results)) == (1, 0, 0)
    (later,) = await asked(results, work)
    await work.end()
    assert later.result() == ("row", True)


async def test_nobody_boards_what_is_being_given_up() -> None:
    results, slow = results_of(), Work()

    async def reluctant() -> str:
        try:
            return await slow()
        except asyncio.CancelledError:
            await settle()  # takes its time to go
            raise

    (leaving,) = await asked(results, reluctant)
    leaving.cancel()
    await asyncio.sleep(0)
    work = Work()
    (later,) = await asked(results, work)
    assert work.begun == 1
    await work.end()
    await settle()
    assert later.result() == ("row", True)
    assert len(results) == 1


async def test_a_fault_of_the_question_is_everybodys_and_not_remembered() -> None:
    results, work = results_of(), Work()
    tasks = await asked(results, work, times=3)
    await work.end(ValueError("no image"))
    assert [type(task.exception()) for task in tasks] == [ValueError] * 3
    assert (work.begun, len(results), results.in_flight) == (1, 0, 0)
    (again,) = await asked(results, work)
    await work.end()
    assert again.result() == ("row", True)


async def test_any_other_fault_is_the_first_askers_alone() -> None:
    results, work = results_of(), Work()
    first, second, third = await asked(results, work, times=3)
    await work.end(RuntimeError("overloaded"))
    assert isinstance(first.exception(), RuntimeError)
    assert work.begun == 2  # once for the two that are left
    await work.end(RuntimeError("again"))
    assert isinstance(second.exception(), RuntimeError)
    await work.end()
    assert third.result() == ("row", True)
    assert work.begun == 3


async def test_a_fault_keeps_nothing_alive() -> None:
    class Data(bytearray):
        pass

    data = Data(b"x")
    freed = weakref.ref(data)

    async def work(data: Data) -> str:
        await asyncio.sleep(0)
        raise ValueError(len(data))

    results = results_of()
    gc.collect()
    gc.disable()  # a circle would wait for it
    try:
        tasks = await asked(results, partial(work, data), times=3)
        del data
        await asyncio.wait(tasks)
        assert all(isinstance(task.exception(), ValueError) for task in tasks)
        tasks.clear()
        await settle()
        assert freed() is None
    finally:
        gc.enable()


async def test_missing_counts_what_would_be_worked_out() -> None:
    results, work = results_of(), Work()
    await known(results, a="1")
    (flying,) = await asked(results, work, "b")
    assert results.missing(["a", "b", "c", "c", "d"]) == 2
    assert results.missing([]) == 0
    await work.end()
    assert flying.done()


@pytest.mark.parametrize("seed", range(30))
async def test_everybody_is_answered_rightly_whatever_happens(seed: int) -> None:
    dice = random.Random(seed)
    results = results_of(3)
    running: dict[str, int] = {}
    left: set[int] = set()

    async def work(key: str) -> str:
        running[key] = running.get(key, 0) + 1
        try:
            for _ in range(dice.randint(0, 8)):
                await asyncio.sleep(0)
            assert running[key] == 1  # one at a time
            if key == "bad":
                raise ValueError(key)
            if dice.random() < 0.2:
                raise RuntimeError(key)
            return key
        finally:
            running[key] -= 1

    async def ask(key: str) -> str:
        return (await results.ask(key, lambda: work(key)))[0]

    keys = [dice.choice(("a", "b", "c", "d", "bad")) for _ in range(200)]
    tasks = []
    for key in keys:
        tasks.append(asyncio.create_task(ask(key)))
        if dice.random() < 0.3:
            number = dice.randrange(len(tasks))
            if tasks[number].cancel():
                left.add(number)
        for _ in range(dice.randint(0, 3)):
            await asyncio.sleep(0)
    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await settle()
    for number, (key, outcome) in enumerate(zip(keys, outcomes, strict=True)):
        if isinstance(outcome, asyncio.CancelledError):
            assert number in left
        elif isinstance(outcome, ValueError):
            assert key == "bad"
        else:
            assert isinstance(outcome, RuntimeError) or outcome == key != "bad"
    assert results.in_flight == 0
    assert len(results) <= 3
    assert not any(running.values())
