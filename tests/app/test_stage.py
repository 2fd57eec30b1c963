"""One stage of the line: what is run together, what is dropped, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import math
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.call import Ran
from app.errors import DeadlinePassed, NotReady
from app.stage import Stage
from tests.app.asgi import until
from tests.app.stepwise import Clock, Steps, settle


@dataclass
class Engine:
    """Doubles numbers. Negative ones break the whole batch they are in."""

    batches: list[list[int]] = field(default_factory=list)
    fault: Callable[[], BaseException] = lambda: RuntimeError("negative")
    answer: Callable[[Sequence[int]], list[int]] = lambda items: [2 * item for item in items]

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        if min(items) < 0:
            raise self.fault()
        return self.answer(items)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def steps() -> Steps:
    return Steps()


def stage_of(engine: Engine, pool: Executor, **limits: Any) -> Stage[int, int]:
    return Stage(engine, pool, **{"batch_size": 4, **limits})


def submitted(stage: Stage[int, int], item: int, seconds: float = 10.0) -> asyncio.Task[Ran[int]]:
    return asyncio.create_task(stage.submit(item, deadline=asyncio.get_running_loop().time() + seconds, limit_s=seconds))


async def held(stage: Stage[int, int], *items: int) -> list[asyncio.Task[Ran[int]]]:
    """The first item is in a call; the others wait behind it."""
    tasks = [submitted(stage, items[0])]
    await settle()
    tasks += [submitted(stage, item) for item in items[1:]]
    await settle()
    return tasks


async def test_one_item_runs_at_once_and_alone(engine: Engine) -> None:
    with ThreadPoolExecutor(1) as pool:
        stage = stage_of(engine, pool)
        ran = await submitted(stage, 21)
        assert (ran.row, ran.batch_size) == (42, 1)
        assert ran.queue_s >= 0
        assert ran.run_s >= 0
        await stage.close()


async def test_what_waits_runs_together_in_order_and_within_the_batch_size(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps)
    tasks = await held(stage, *range(10))
    assert (stage.waiting, stage.in_hand) == (9, 1)
    await steps.run_all()
    ran = [task.result() for task in tasks]
    assert [r.row for r in ran] == [2 * n for n in range(10)]
    assert engine.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]
    assert [r.batch_size for r in ran] == [1, 4, 4, 4, 4, 4, 4, 4, 4, 1]
    assert (stage.waiting, stage.in_hand) == (0, 0)


async def test_what_arrives_together_runs_together(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps)
    tasks = [submitted(stage, item) for item in range(3)]
    await steps.run_all()
    assert engine.batches == [[0, 1, 2]]
    assert [task.result().row for task in tasks] == [0, 2, 4]


# several streams


async def test_streams_run_side_by_side_and_end_in_any_order(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps, streams=3, batch_size=1)
    tasks = [submitted(stage, item) for item in range(5)]
    await settle()
    assert (len(steps), stage.waiting) == (3, 2)
    await steps.step(2)
    assert [task.done() for task in tasks] == [False, False, True, False, False]
    assert (len(steps), stage.waiting) == (3, 1)
    await steps.run_all()
    assert [task.result().row for task in tasks] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("count", "streams", "sizes"),
    [(8, 2, [4, 4]), (2, 2, [1, 1]), (3, 2, [2, 1]), (20, 2, [8, 8, 2, 1, 1]), (1, 4, [1]), (9, 4, [3, 3, 3])],
)
async def test_free_streams_share_what_waits(engine: Engine, steps: Steps, count: int, streams: int, sizes: list[int]) -> None:
    stage = stage_of(engine, steps, streams=streams, batch_size=8)
    tasks = [submitted(stage, item) for item in range(count)]
    await settle()
    assert len(steps) == min(streams, len(sizes))  # at once
    await steps.run_all()
    assert [len(batch) for batch in engine.batches] == sizes
    assert [task.result().row for task in tasks] == [2 * n for n in range(count)]


async def test_a_stream_leaves_its_share_to_one_that_will_soon_be_free(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps, streams=2, batch_size=8)
    tasks = [submitted(stage, 0), submitted(stage, 1)]
    await settle()
    tasks += [submitted(stage, item) for item in range(2, 10)]
    await settle()
    await steps.step()
    assert (stage.waiting, stage.in_hand) == (4, 5)
    await steps.run_all()
    assert [task.result().row for task in tasks] == [2 * n for n in range(10)]


async def test_spare_calls_wait_for_a_thread_and_are_dropped_with_their_owners(engine: Engine, steps: Steps) -> None:
    clock = Clock()
    stage = stage_of(engine, steps, streams=1, batch_size=1, spare=2, clock=clock)
    tasks = [submitted(stage, item) for item in range(5)]
    await settle()
    assert (len(steps), stage.waiting, stage.in_hand) == (3, 2, 3)
    tasks[1].cancel()
    await settle()

    def slow(items: Sequence[int]) -> list[int]:
        clock.now += 1
        return [2 * item for item in items]

    engine.answer = slow
    await steps.run_all()
    assert engine.batches == [[0], [2], [3], [4]]
    assert [(t.result().queue_s, t.result().run_s) for t in tasks if not t.cancelled()] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    for _ in range(4):
        submitted(stage, 1)
    await steps.run_all()
    assert stage.measured
    assert stage.seconds_for(10) == 10  # one thread, whatever waits for it


async def test_no_more_is_taken_than_what_comes_after_has_room_for(engine: Engine, steps: Steps) -> None:
    room = 1
    stage: Stage[int, int] = stage_of(engine, steps, streams=4, batch_size=1, room=lambda: room - stage.in_hand)
    tasks = [submitted(stage, item) for item in range(4)]
    await settle()
    assert len(steps) == 1
    room = 3
    stage.wake()
    await settle()
    assert len(steps) == 3
    await steps.run_all()
    assert [task.result().row for task in tasks] == [0, 2, 4, 6]


async def test_what_is_before_hears_of_every_item_that_leaves_the_queue(engine: Engine, steps: Steps) -> None:
    told: list[int] = []
    stage: Stage[int, int] = stage_of(engine, steps, moved=lambda: told.append(stage.waiting))
    _, leaving, _ = await held(stage, 1, 2, 3)
    assert told == [0]
    leaving.cancel()
    await settle()
    assert told == [0, 1]
    await steps.run_all()
    assert told == [0, 1, 0]


# times


async def test_waiting_and_running_are_told_apart(engine: Engine, steps: Steps) -> None:
    clock = Clock()
    stage = stage_of(engine, steps, batch_size=1, clock=clock)
    first, second = await held(stage, 1, 2)

    def slow(items: Sequence[int]) -> list[int]:
        clock.now += 0.5
        return list(items)

    engine.answer = slow
    clock.now += 2  # until a thread is free
    await steps.run_all()
    assert (first.result().queue_s, first.result().run_s) == (2, 0.5)
    assert (second.result().queue_s, second.result().run_s) == (2.5, 0.5)


async def test_times_of_calls_side_by_side_are_their_own(engine: Engine, steps: Steps) -> None:
    clock = Clock()
    stage = stage_of(engine, steps, batch_size=1, streams=2, clock=clock)
    tasks = [submitted(stage, item) for item in (1, 2, 3)]
    await settle()

    def slow(items: Sequence[int]) -> list[int]:
        clock.now += items[0]
        return list(items)

    engine.answer = slow
    await steps.step(1)  # the second item, for 2 s
    await steps.step(0)  # the first, for 1 s, in a thread that was 2 s late
    await steps.step(0)
    assert [(t.result().queue_s, t.result().run_s) for t in tasks] == [(2, 1), (0, 2), (3, 3)]


async def test_the_speed_is_that_of_full_calls_side_by_side(engine: Engine, steps: Steps) -> None:
    clock = Clock()
    stage = stage_of(engine, steps, streams=2, batch_size=4, guess_s=0.5, clock=clock)
    assert (stage.seconds_for(10), stage.measured) == (5, False)

    def slow(items: Sequence[int]) -> list[int]:
        clock.now += 0.8
        return list(items)

    engine.answer = slow
    for n in range(8):
        assert not stage.measured
        submitted(stage, n)
        await steps.run_all()
    assert stage.measured
    assert stage.seconds_for(10) == pytest.approx(10 * 0.8 / 8)


async def test_the_speed_of_other_days_is_forgotten(engine: Engine, steps: Steps) -> None:
    clock = Clock()
    stage = stage_of(engine, steps, batch_size=1, clock=clock)
    seconds = 4.0

    def slow(items: Sequence[int]) -> list[int]:
        clock.now += seconds
        return list(items)

    engine.answer = slow
    for n in range(48):
        if n == 8:
            assert stage.seconds_for(1) == 4
            seconds = 0.01
        submitted(stage, n)
        await steps.run_all()
    assert stage.seconds_for(1) < 0.04


async def until_done(steps: Steps, task: asyncio.Task[Ran[int]]) -> Ran[int]:
    await steps.run_all()
    return task.result()


# what is dropped


async def test_what_expired_in_the_queue_never_runs(engine: Engine, steps: Steps) -> None:
    clock = Clock()
    clock.drive(asyncio.get_running_loop())
    stage = stage_of(engine, steps)
    tasks = await held(stage, 1, 2)
    late = submitted(stage, 3, seconds=0.5)
    await settle()
    clock.now += 0.5
    await steps.run_all()
    with pytest.raises(DeadlinePassed) as caught:
        await late
    assert caught.value.limit == 0.5
    assert [task.result().row for task in tasks] == [2, 4]
    assert engine.batches == [[1], [2]]


async def test_what_has_expired_before_is_not_even_queued(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps, batch_size=1)
    with pytest.raises(DeadlinePassed):
        await submitted(stage, 1, seconds=-1)
    assert len(steps) == 0
    (busy,) = await held(stage, 2)
    late = submitted(stage, 3, seconds=-1)
    await settle()
    assert isinstance(late.exception(), DeadlinePassed)  # told now, not when the one before it has ended
    assert not busy.done()
    await steps.run_all()


async def test_what_was_abandoned_never_runs_and_is_freed_at_once(steps: Steps) -> None:
    class Number(float):  # plain numbers know no weak references
        pass

    stage: Stage[float, float] = Stage(lambda items: [2 * item for item in items], steps, batch_size=4)
    item = Number(2)
    freed = weakref.ref(item)
    first = asyncio.create_task(stage.submit(1, deadline=math.inf, limit_s=9))
    await settle()
    leaving = asyncio.create_task(stage.submit(item, deadline=math.inf, limit_s=9))
    staying = asyncio.create_task(stage.submit(3, deadline=math.inf, limit_s=9))
    del item
    await settle()
    assert stage.waiting == 2
    leaving.cancel()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    del leaving
    gc.collect()
    assert stage.waiting == 1
    assert freed() is None
    await steps.run_all()
    assert [(task.result().row, task.result().batch_size) for task in (first, staying)] == [(2, 1), (6, 1)]


async def test_what_was_abandoned_while_the_pool_was_late_never_runs(engine: Engine, steps: Steps) -> None:
    clock = Clock()
    stage = stage_of(engine, steps, guess_s=1.0, clock=clock)
    leaving, staying = submitted(stage, 1), submitted(stage, 2)
    await settle()
    leaving.cancel()
    await steps.run_all()
    assert engine.batches == [[2]]
    assert staying.result().batch_size == 1
    alone = submitted(stage, 3)
    await settle()
    alone.cancel()
    for _ in range(8):
        await steps.run_all()
    assert engine.batches == [[2]]  # not even a call of nothing
    assert (await until_done(steps, submitted(stage, 4))).row == 8


async def test_an_owner_that_leaves_while_it_runs_harms_nobody(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps)
    leaving, staying = submitted(stage, 1), submitted(stage, 2)
    await settle()

    def meanwhile(items: Sequence[int]) -> list[int]:
        leaving.cancel()
        return [2 * item for item in items]

    engine.answer = meanwhile
    await steps.run_all()
    assert leaving.cancelled()
    assert engine.batches == [[1, 2]]
    assert staying.result().row == 4


# what fails


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("bad", [1, 2, 3, 4])
async def test_the_item_at_fault_is_found_and_its_neighbours_are_answered(
    engine: Engine, steps: Steps, bad: int, streams: int
) -> None:
    stage = stage_of(engine, steps, streams=streams)
    items = [0, 1, 2, 3, 4]
    items[bad] = -1
    tasks = await held(stage, *items)
    await steps.run_all()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[bad], RuntimeError)
    assert [r.row for i, r in enumerate(results) if i != bad and isinstance(r, Ran)] == [2 * n for n in items if n >= 0]
    assert [-1] in engine.batches


async def test_halves_go_before_what_came_later(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps)
    tasks = await held(stage, 0, 1, -1, 2, 3, 4)
    await steps.run_all()
    assert engine.batches == [[0], [1, -1, 2, 3], [1, -1], [2, 3], [1], [-1], [4]]
    assert [task.exception() is None for task in tasks] == [True, True, False, True, True, True]


async def test_who_leaves_or_expires_between_the_halves_is_not_run_again(engine: Engine, steps: Steps) -> None:
    clock = Clock()
    clock.drive(asyncio.get_running_loop())
    stage = stage_of(engine, steps)
    leaving, bad, late, good = (submitted(stage, item, seconds) for item, seconds in ((1, 9), (-1, 9), (2, 1), (3, 9)))
    await settle()
    await steps.step()
    leaving.cancel()
    clock.now += 1
    await steps.run_all()
    assert engine.batches == [[1, -1, 2, 3], [-1], [3]]
    assert isinstance(late.exception(), DeadlinePassed)
    assert isinstance(bad.exception(), RuntimeError)
    assert good.result().row == 6


async def test_a_batch_of_nothing_but_faults_ends(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps)
    tasks = await held(stage, 0, -1, -2, -3, -4)
    await steps.run_all()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(r) for r in results] == [Ran] + [RuntimeError] * 4


async def test_a_batch_without_memory_is_halved_and_later_ones_are_no_larger(engine: Engine, steps: Steps) -> None:
    def little(items: Sequence[int]) -> list[int]:
        if len(items) > 3:
            raise MemoryError
        return [2 * item for item in items]

    engine.answer = little
    stage = stage_of(engine, steps, batch_size=8, out_of_memory=lambda error: isinstance(error, MemoryError))
    tasks = [submitted(stage, item) for item in range(20)]
    await steps.run_all()
    assert [task.result().row for task in tasks] == [2 * n for n in range(20)]
    assert [len(batch) for batch in engine.batches] == [8, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert stage.batch_size == 2


async def test_other_faults_leave_the_batch_size_alone(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps, out_of_memory=lambda error: isinstance(error, MemoryError))
    submitted(stage, -1)
    submitted(stage, 1)
    await steps.run_all()
    assert stage.batch_size == 4


@pytest.mark.parametrize(
    "fault",
    [StopIteration, GeneratorExit, SystemExit, KeyboardInterrupt, asyncio.CancelledError, concurrent.futures.CancelledError,
     MemoryError],
)  # fmt: skip
async def test_whatever_a_call_raises_the_stage_goes_on(engine: Engine, fault: type[BaseException]) -> None:
    engine.fault = fault
    with ThreadPoolExecutor(1) as pool:
        stage = stage_of(engine, pool)
        (result,) = await asyncio.wait_for(asyncio.gather(submitted(stage, -1), return_exceptions=True), 5)
        assert isinstance(result, (RuntimeError, MemoryError))
        assert (await asyncio.wait_for(submitted(stage, 7), 5)).row == 14
        await stage.close()


@pytest.mark.parametrize("rows", [0, 1, 3])
async def test_a_call_that_miscounts_answers_nobody_wrongly(engine: Engine, steps: Steps, rows: int) -> None:
    stage = stage_of(engine, steps)
    tasks = await held(stage, 0, 1, 2)
    engine.answer = lambda items: [2 * item for item in items] if len(items) == 1 else [99] * rows
    await steps.run_all()
    assert [task.result().row for task in tasks] == [0, 2, 4]  # found right one by one


async def test_a_pool_that_is_gone_fails_the_item_only(engine: Engine) -> None:
    pool = ThreadPoolExecutor(1)
    stage = stage_of(engine, pool)
    pool.shutdown()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await submitted(stage, 1)
    await stage.close()


async def test_a_fault_keeps_nothing_alive() -> None:
    class Number(float):
        pass

    def fail(items: Sequence[float]) -> list[float]:
        raise ValueError

    with ThreadPoolExecutor(1) as pool:
        stage: Stage[float, float] = Stage(fail, pool)
        item = Number(1)
        freed = weakref.ref(item)
        gc.collect()
        gc.disable()  # a circle would wait for it
        try:
            task = asyncio.create_task(stage.submit(item, deadline=math.inf, limit_s=1))
            del item
            await asyncio.wait([task])
            assert isinstance(task.exception(), ValueError)
            del task
            await until(lambda: freed() is None)
        finally:
            gc.enable()


# the end


async def test_closing_finishes_what_runs_and_fails_what_waits(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps, batch_size=1, streams=2)
    tasks = [submitted(stage, item) for item in (1, 2, 3)]
    await settle()
    closing = asyncio.create_task(stage.close())
    await settle()
    assert isinstance(tasks[2].exception(), NotReady)
    with pytest.raises(NotReady):
        await submitted(stage, 4)
    await steps.step()
    assert not closing.done()
    await steps.step()
    assert closing.done()
    assert [task.result().row for task in tasks[:2]] == [2, 4]


async def test_closing_waits_for_the_halves_of_what_ran(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps)
    tasks = [submitted(stage, item) for item in (1, -1, 3)]
    await settle()
    closing = asyncio.create_task(stage.close())
    await steps.run_all()
    assert closing.done()
    assert [type(task.exception()) for task in tasks] == [type(None), RuntimeError, type(None)]


async def test_closing_twice_or_unused(engine: Engine) -> None:
    with ThreadPoolExecutor(1) as pool:
        stage = stage_of(engine, pool)
        await stage.close()
        await stage.close()
        used = stage_of(engine, pool)
        await submitted(used, 1)
        await used.close()
        await used.close()


async def test_a_loop_that_is_gone_is_no_fault_of_the_thread(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """What still runs when the process ends has nobody to tell."""
    steps = Steps()

    def other_loop() -> None:
        async def leave() -> None:
            task = submitted(stage_of(engine, steps), 1)
            await settle()
            task.cancel()

        asyncio.run(leave())

    await asyncio.to_thread(other_loop)
    steps.run()
    assert not caplog.records  # where a pool tells of faults like this one


# what never comes back


async def test_given_up_everybody_is_told_at_once_even_those_in_a_call(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps)
    tasks = await held(stage, *range(6))
    assert stage.oldest() is None  # it has no thread yet
    stage.give_up(["the engine is stuck"])
    await settle()
    for task in tasks:
        with pytest.raises(NotReady, match="the engine is stuck"):
            task.result()
    with pytest.raises(NotReady, match="the engine is stuck"):
        await submitted(stage, 7)
    assert (stage.waiting, stage.in_hand) == (0, 0)
    await stage.close()  # waits for nobody
    await steps.run_all()  # the call does come back, and nobody minds
    assert engine.batches in ([], [[0]])


async def test_given_up_halves_are_not_run(engine: Engine, steps: Steps) -> None:
    stage = stage_of(engine, steps)
    tasks = await held(stage, 0, 1, -1, 2)
    await steps.step()
    await steps.step()  # the batch of three fails, and one half is on its way
    assert len(steps) == 1
    stage.give_up(["stuck"])
    await steps.run_all()
    assert [type(task.exception()).__name__ for task in tasks[1:]] == ["NotReady"] * 3


async def test_the_oldest_call_is_told_while_it_is_at_work() -> None:
    gate, inside, clock = threading.Event(), threading.Event(), Clock()

    def run(items: Sequence[int]) -> list[int]:
        inside.set()
        assert gate.wait(10)
        return list(items)

    with ThreadPoolExecutor(1) as pool:
        stage: Stage[int, int] = Stage(run, pool, clock=clock)
        began = clock.now
        task = submitted(stage, 1)
        await asyncio.to_thread(inside.wait, 10)
        clock.now += 5
        assert (stage.oldest(), stage.oldest(1)) == (began, None)
        gate.set()
        assert (await task).run_s == 5
        assert stage.oldest() is None
        await stage.close()


async def test_each_call_tells_what_it_ended_with(engine: Engine, steps: Steps) -> None:
    ended: list[str] = []
    stage = stage_of(engine, steps, batch_size=1, ended=lambda error: ended.append(type(error).__name__))
    tasks = [submitted(stage, item) for item in (1, -1, 2)]
    await steps.run_all()
    assert ended == ["NoneType", "RuntimeError", "NoneType"]
    await asyncio.gather(*tasks, return_exceptions=True)
