"""Admission and the line behind it: who is let in, who is told when to come back, and that every place is given back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from app.errors import DeadlinePassed, NotReady, Overloaded
from app.scheduler import HEADROOM, Pools, Scheduler
from tests.app.stepwise import Clock, Steps, settle


class Line:
    """A scheduler whose threads and time move by hand. An item is a number; preparing adds 1, the engine doubles.

    `prepare_s` and `call_s` are what a preparation and a call of the engine take.
    """

    def __init__(self, *, threads: int = 1, prepare_s: float = 0.0, call_s: float = 0.0, **limits: Any) -> None:
        self.clock = Clock()
        self.clock.drive(asyncio.get_running_loop())
        self.decode, self.engine = Steps(), Steps()
        self.prepare_s, self.call_s = prepare_s, call_s
        self.prepared: list[int] = []
        self.batches: list[list[int]] = []
        pools = Pools(self.decode, threads, self.engine)
        self.scheduler: Scheduler[int, int] = Scheduler(self.run, pools, **{"max_items": 100, "clock": self.clock, **limits})

    def prepare(self, number: int) -> int:
        self.clock.now += self.prepare_s
        self.prepared.append(number)
        if number % 10 == 7:
            raise ValueError(number)
        return number + 1

    def run(self, items: Sequence[int]) -> list[int]:
        self.clock.now += self.call_s
        self.batches.append(list(items))
        if any(item % 10 == 4 for item in items):
            raise RuntimeError(items)
        return [2 * item for item in items]

    async def answer(self, number: int, seconds: float = 100.0) -> int:
        deadline = self.clock.now + seconds
        with self.scheduler.admit(1, deadline) as places, places.take():
            async with asyncio.timeout_at(deadline):
                item = await self.scheduler.prepare(partial(self.prepare, number), deadline=deadline, limit_s=seconds)
                ran = await self.scheduler.submit(item.row, deadline=deadline, limit_s=seconds)
        return ran.row

    def ask(self, number: int = 0, seconds: float = 100.0) -> asyncio.Task[int]:
        return asyncio.create_task(self.answer(number, seconds))

    def refused(self, seconds: float = 100.0) -> bool:
        return self.scheduler.refusal(1, self.clock.now + seconds) is not None

    async def go(self) -> None:
        """Until nothing more happens by itself."""
        await settle()
        while self.decode or self.engine:
            for pool in (self.engine, self.decode):
                if pool:
                    await pool.step()

    async def learn(self, times: int) -> None:
        """So many images one after the other."""
        for _ in range(times):
            task = self.ask()
            await self.go()
            assert task.result() == 2


FAR = 1e9


# admission


async def test_room_is_held_and_given_back() -> None:
    scheduler = Line(max_items=5).scheduler
    with scheduler.admit(3, FAR):
        assert scheduler.admitted == 3
        with scheduler.admit(2, FAR), pytest.raises(Overloaded) as caught:
            scheduler.admit(1, FAR)
        assert caught.value.limit == 5
        with pytest.raises(Overloaded):
            scheduler.admit(3, FAR)
        assert scheduler.admitted == 3
    assert scheduler.admitted == 0
    with pytest.raises(ZeroDivisionError), scheduler.admit(5, FAR):
        _ = 1 / 0
    assert scheduler.admitted == 0


async def test_each_place_is_given_back_by_itself_and_once() -> None:
    scheduler = Line(max_items=5).scheduler
    with scheduler.admit(3, FAR) as places:
        with places.take():
            assert scheduler.admitted == 3
        assert scheduler.admitted == 2
        with pytest.raises(ZeroDivisionError), places.take():
            _ = 1 / 0
        assert scheduler.admitted == 1
    assert scheduler.admitted == 0


async def test_a_place_that_was_not_held_is_asked_for() -> None:
    scheduler = Line(max_items=2).scheduler
    with scheduler.admit(0, FAR) as places:
        assert scheduler.admitted == 0
        with places.take(), places.take(), pytest.raises(Overloaded), places.take():
            pass
        with places.take():
            assert scheduler.admitted == 1
    late = scheduler.admit(1, FAR)
    with late:
        pass
    with late.take():  # what was given back is not given out again
        assert scheduler.admitted == 1
    assert scheduler.admitted == 0


async def test_a_refusal_is_known_without_asking_for_room() -> None:
    line = Line(max_items=2)
    assert not line.refused()
    with line.scheduler.admit(2, FAR):
        refusal = line.scheduler.refusal(1, FAR)
        assert isinstance(refusal, Overloaded)
        assert (refusal.limit, line.scheduler.admitted) == (2, 2)
        assert line.scheduler.refusal(0, FAR) is None
    await line.scheduler.close()
    assert isinstance(line.scheduler.refusal(1, FAR), NotReady)
    assert isinstance(line.scheduler.refusal(0, FAR), NotReady)


# when to come back


async def test_until_it_is_measured_the_answer_is_a_guess() -> None:
    line = Line(guess_s=0.05)
    assert line.scheduler.retry_after() == 1
    with line.scheduler.admit(100, FAR):
        assert line.scheduler.retry_after() == 5


@pytest.mark.parametrize(
    ("prepare_s", "call_s", "threads", "streams", "batch_size", "seconds"),
    [
        (0.0, 0.5, 1, 1, 1, 50),  # the engine
        (0.0, 0.5, 1, 2, 1, 25),  # with two streams
        (0.0, 0.5, 1, 2, 4, 7),  # of batches
        (0.5, 0.1, 1, 1, 1, 50),  # decoding
        (0.5, 0.1, 4, 1, 1, 13),  # in four threads
        (0.5, 0.3, 2, 1, 1, 30),  # the engine again
    ],
)
async def test_when_to_come_back_follows_depth_and_the_slower_stage(
    prepare_s: float, call_s: float, threads: int, streams: int, batch_size: int, seconds: int
) -> None:
    line = Line(prepare_s=prepare_s, call_s=call_s, threads=threads, streams=streams, batch_size=batch_size)
    await line.learn(10)
    assert line.scheduler.retry_after() == 1
    with line.scheduler.admit(100, FAR):
        assert line.scheduler.retry_after() == seconds
    with line.scheduler.admit(50, FAR):
        assert line.scheduler.retry_after() == pytest.approx(seconds / 2, abs=1)


async def test_what_is_prepared_already_does_not_wait_for_it_again() -> None:
    line = Line(prepare_s=1.0, call_s=0.1, threads=1, batch_size=8)
    await line.learn(10)
    line.ask()
    for _ in range(8):
        line.ask()
    await settle()
    await line.decode.step()  # goes into the engine
    for _ in range(8):
        await line.decode.step()
    assert (line.scheduler.ready, line.scheduler.admitted) == (8, 9)
    assert line.scheduler.retry_after() == 1
    await line.go()


# who would be too late


async def test_nobody_is_refused_by_a_guess() -> None:
    line = Line(guess_s=50)
    with line.scheduler.admit(90, FAR):
        assert not line.refused(0.001)
    await line.learn(7)
    with line.scheduler.admit(90, FAR):
        assert not line.refused(0.001)


async def test_who_could_not_be_answered_in_time_is_told_at_once() -> None:
    line = Line(call_s=0.1)
    await line.learn(20)
    with line.scheduler.admit(39, FAR):
        assert not line.refused(4.001 / HEADROOM)
        refusal = line.scheduler.refusal(1, line.clock.now + 2 / HEADROOM)
        assert isinstance(refusal, Overloaded)
        assert refusal.retry_after == 4
        assert 19 <= refusal.limit <= 20  # images that fit into two seconds
        assert not line.refused(-1)  # too late already: that is something else
    for _ in range(40):
        line.ask()
    with pytest.raises(Overloaded):
        await line.ask(seconds=1)
    await line.go()
    assert line.scheduler.admitted == 0


async def test_with_nobody_ahead_there_is_hope_however_slow_it_was() -> None:
    line = Line(call_s=5.0)
    await line.learn(20)
    assert not line.refused(0.001)
    with line.scheduler.admit(1, FAR):
        assert line.refused(5.0)


async def test_a_speed_measured_too_low_heals() -> None:
    """All but the first of a crowd are refused, so only that one teaches; it must be enough."""
    line = Line(call_s=5.0, streams=2)
    await line.learn(20)
    line.call_s = 0.01
    crowds = []
    for _ in range(60):
        crowd = [line.ask(seconds=1.0) for _ in range(10)]
        await line.go()
        results = await asyncio.gather(*crowd, return_exceptions=True)
        assert {type(r) for r in results} <= {int, Overloaded}
        crowds.append(sum(isinstance(r, int) for r in results))
    assert crowds[0] < 3
    assert crowds[-1] == 10


async def test_one_pause_of_the_machine_is_soon_forgotten() -> None:
    line = Line(call_s=0.01)
    await line.learn(50)
    line.call_s = 5.0
    await line.learn(1)
    line.call_s = 0.01
    await line.learn(30)
    with line.scheduler.admit(50, FAR):
        assert not line.refused(2.0)


async def test_quiet_hours_teach_nothing_wrong() -> None:
    """One at a time says how long a call takes, not that only one of them can be made."""
    line = Line(call_s=0.1, streams=8, batch_size=4)
    await line.learn(50)
    with line.scheduler.admit(99, FAR):
        assert not line.refused(0.5)  # 100 images are four rounds of 32


async def test_departed_clients_do_not_make_it_look_fast() -> None:
    line = Line(call_s=1.0)
    await line.learn(20)
    for _ in range(50):
        task = line.ask()
        await settle()
        task.cancel()
        await settle()
    with line.scheduler.admit(50, FAR):
        assert line.scheduler.retry_after() >= 45


# the line


@pytest.mark.parametrize(("threads", "streams", "batch_size"), [(1, 1, 1), (2, 2, 1), (4, 1, 8), (3, 2, 4)])
async def test_no_more_is_prepared_than_the_engine_can_soon_take(threads: int, streams: int, batch_size: int) -> None:
    line = Line(threads=threads, streams=streams, batch_size=batch_size)
    tasks = [line.ask() for _ in range(90)]
    await settle()
    while line.decode:
        assert len(line.decode) <= 2 * threads  # in hand, and one more for each
        await line.decode.step()
    running = line.scheduler._engine.in_hand
    assert streams <= running <= streams * batch_size
    assert line.scheduler.ready == streams * batch_size + threads
    assert len(line.prepared) == running + line.scheduler.ready
    await line.engine.step()  # a call that ends makes room for others
    assert len(line.decode) > 0
    await line.go()
    assert [task.result() for task in tasks] == [2] * 90


async def test_who_leaves_makes_room_too() -> None:
    line = Line()
    tasks = [line.ask() for _ in range(9)]
    await settle()
    while line.decode:
        await line.decode.step()
    assert len(line.prepared) == 3  # one in the engine, two ready
    tasks[1].cancel()
    await settle()
    assert len(line.decode) == 1
    await line.go()
    assert len(line.prepared) == 9


async def test_what_is_late_or_left_while_it_waits_is_never_prepared() -> None:
    line = Line(threads=1)
    first, leaving, late, last = line.ask(1), line.ask(2), line.ask(3, seconds=0.5), line.ask(4)
    await settle()
    leaving.cancel()
    line.clock.now += 0.6
    await line.go()
    assert line.prepared == [1, 4]
    assert isinstance(late.exception(), TimeoutError | DeadlinePassed)
    assert [first.result(), last.result()] == [4, 10]
    assert line.scheduler.admitted == 0


async def test_what_is_late_once_prepared_never_reaches_the_engine() -> None:
    line = Line(prepare_s=1.0)
    late = line.ask(1, seconds=0.9)
    await line.go()
    assert isinstance(late.exception(), TimeoutError | DeadlinePassed)
    assert (line.prepared, line.batches) == ([1], [])


async def test_closing_finishes_what_runs_and_fails_what_waits() -> None:
    line = Line(threads=1)
    tasks = [line.ask(n) for n in range(4)]
    await settle()
    await line.decode.step()  # one runs, one is being prepared, two wait for that
    closing = asyncio.create_task(line.scheduler.close())
    await settle()
    with pytest.raises(NotReady):
        await line.ask()
    assert not closing.done()
    await line.go()
    await closing
    assert tasks[0].result() == 2
    assert [type(task.exception()) for task in tasks[1:]] == [NotReady] * 3
    assert line.scheduler.admitted == 0


# everything at once


@pytest.mark.parametrize("seed", range(60))
async def test_every_image_ends_exactly_once_whatever_happens(seed: int) -> None:
    """Arrivals, departures, faults and time in any order; numbers that end in 7 cannot be prepared, those in 3 not be run."""
    dice = random.Random(seed)
    line = Line(
        threads=dice.randint(1, 4), streams=dice.randint(1, 3), batch_size=dice.choice((1, 2, 5, 8)),
        max_items=dice.choice((5, 20, 60)), prepare_s=dice.choice((0, 0.01)), call_s=dice.choice((0, 0.02)),
    )  # fmt: skip
    tasks: list[asyncio.Task[int]] = []
    left: set[int] = set()
    for _ in range(400):
        event = dice.choices(("arrive", "leave", "decode", "engine", "wait"), (6, 1, 3, 3, 1))[0]
        if event == "arrive":
            tasks.append(line.ask(len(tasks), dice.choice((0.05, 0.5, 100.0))))
        elif event == "leave" and tasks:
            number = dice.randrange(len(tasks))
            if tasks[number].cancel():
                left.add(number)
        elif event == "wait":
            line.clock.now += dice.choice((0.001, 0.03))
        else:
            pool = line.decode if event == "decode" else line.engine
            if pool:
                pool.run(dice.randrange(len(pool)))
        for _ in range(dice.randint(0, 6)):
            await asyncio.sleep(0)
    await line.go()
    assert len(tasks) > 100
    assert all(task.done() for task in tasks)
    for number, task in enumerate(tasks):
        if task.cancelled():
            assert number in left
            continue
        error = task.exception()
        if error is None:
            assert task.result() == 2 * (number + 1)
        assert number % 10 not in (3, 7) or error is not None
        assert isinstance(error, (type(None), Overloaded, DeadlinePassed, TimeoutError, ValueError, RuntimeError))
        if isinstance(error, ValueError | RuntimeError):  # its own fault, and nobody else's
            assert number % 10 in (3, 7)
    assert line.scheduler.admitted == line.scheduler.ready == line.scheduler.unprepared == 0
    assert sorted(set(line.prepared)) == sorted(line.prepared)  # nothing was prepared twice
    closing = asyncio.create_task(line.scheduler.close())
    await settle()
    assert closing.done()


@pytest.mark.parametrize("seed", range(4))
async def test_with_real_threads_too(seed: int) -> None:
    dice = random.Random(seed)

    def run(items: Sequence[int]) -> list[int]:
        return [2 * item for item in items]

    with ThreadPoolExecutor(3) as decode, ThreadPoolExecutor(2) as engine:
        scheduler: Scheduler[int, int] = Scheduler(
            run, Pools(decode, 3, engine), max_items=500, streams=2, batch_size=dice.randint(1, 8)
        )

        async def answer(number: int) -> int:
            for _ in range(dice.randint(0, 30)):
                await asyncio.sleep(0)
            with scheduler.admit(1, FAR) as places, places.take():
                item = await scheduler.prepare(lambda: number + 1, deadline=FAR, limit_s=FAR)
                return (await scheduler.submit(item.row, deadline=FAR, limit_s=FAR)).row

        async with asyncio.timeout(60):
            tasks = [asyncio.create_task(answer(number)) for number in range(400)]
            for _ in range(40):
                await asyncio.sleep(0)
                dice.choice(tasks).cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await scheduler.close()
    assert all(r == 2 * (n + 1) or isinstance(r, asyncio.CancelledError) for n, r in enumerate(results))
    assert sum(isinstance(r, int) for r in results) >= 360
    assert scheduler.admitted == 0
