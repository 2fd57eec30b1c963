"""The queue in front of the engine: what is run together, what is dropped, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from app.errors import DeadlinePassed, NotReady, Overloaded
from app.scheduler import Ran, Scheduler
from tests.app.asgi import until


@dataclass
class Engine:
    """Doubles numbers. Negative ones break the whole batch they are in."""

    batches: list[list[int]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    fault: Callable[[], BaseException] = lambda: RuntimeError("negative")
    answer: Callable[[Sequence[int]], list[int]] = lambda items: [2 * item for item in items]

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        assert self.gate.wait(10)
        if min(items) < 0:
            raise self.fault()
        return self.answer(items)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def engine() -> Engine:
    return Engine()


def scheduler_of(engine: Engine, pool: ThreadPoolExecutor, *, max_items: int = 100, batch_size: int = 4) -> Scheduler[int, int]:
    return Scheduler(engine, pool, max_items=max_items, batch_size=batch_size)


def submitted(scheduler: Scheduler[int, int], item: int, seconds: float = 10.0) -> asyncio.Task[Ran[int]]:
    return asyncio.create_task(scheduler.submit(item, deadline=asyncio.get_running_loop().time() + seconds, limit_s=seconds))


async def held(scheduler: Scheduler[int, int], engine: Engine, *items: int) -> list[asyncio.Task[Ran[int]]]:
    """The first item runs and is held there; the others wait behind it."""
    engine.gate.clear()
    tasks = [submitted(scheduler, items[0])]
    await until(lambda: engine.batches)
    tasks += [submitted(scheduler, item) for item in items[1:]]
    await until(lambda: len(scheduler._waiting) == len(items) - 1)
    return tasks


async def test_one_item_runs_at_once_and_alone(engine: Engine, pool: ThreadPoolExecutor) -> None:
    scheduler = scheduler_of(engine, pool)
    ran = await submitted(scheduler, 21)
    assert (ran.row, ran.batch_size) == (42, 1)
    assert ran.queue_s >= 0
    assert ran.inference_s >= 0
    await scheduler.close()


async def test_what_waits_runs_together_in_order_and_within_the_batch_size(engine: Engine, pool: ThreadPoolExecutor) -> None:
    scheduler = scheduler_of(engine, pool)
    tasks = await held(scheduler, engine, *range(10))
    engine.gate.set()
    ran = await asyncio.gather(*tasks)
    assert [r.row for r in ran] == [2 * n for n in range(10)]
    assert engine.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]
    assert [r.batch_size for r in ran] == [1, 4, 4, 4, 4, 4, 4, 4, 4, 1]
    await scheduler.close()


async def test_waiting_and_running_are_told_apart(engine: Engine, pool: ThreadPoolExecutor) -> None:
    scheduler = scheduler_of(engine, pool, batch_size=1)
    first, second = await held(scheduler, engine, 1, 2)
    await asyncio.sleep(0.2)
    engine.gate.set()
    assert (await first).inference_s >= 0.2
    assert (await first).queue_s < 0.2
    assert (await second).queue_s >= 0.2
    assert (await second).inference_s < 0.2
    await scheduler.close()


async def test_what_expired_in_the_queue_never_runs(engine: Engine, pool: ThreadPoolExecutor) -> None:
    scheduler = scheduler_of(engine, pool)
    tasks = await held(scheduler, engine, 1, 2)
    late = submitted(scheduler, 3, seconds=0.01)
    await asyncio.sleep(0.03)
    engine.gate.set()
    with pytest.raises(DeadlinePassed) as caught:
        await late
    assert caught.value.limit == 0.01
    await asyncio.gather(*tasks)
    assert engine.batches == [[1], [2]]
    await scheduler.close()


async def test_what_was_abandoned_never_runs_and_is_freed_at_once(engine: Engine, pool: ThreadPoolExecutor) -> None:
    scheduler = scheduler_of(engine, pool)
    first, leaving, staying = await held(scheduler, engine, 1, 2, 3)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert [entry.item for entry in scheduler._waiting] == [3]
    engine.gate.set()
    assert [(await first).row, (await staying).row] == [2, 6]
    assert engine.batches == [[1], [3]]
    await scheduler.close()


async def test_an_owner_that_leaves_while_it_runs_harms_nobody(engine: Engine, pool: ThreadPoolExecutor) -> None:
    scheduler = scheduler_of(engine, pool)
    (leaving,) = await held(scheduler, engine, 1)
    leaving.cancel()
    await asyncio.sleep(0)
    engine.gate.set()
    assert (await submitted(scheduler, 2)).row == 4
    await scheduler.close()


@pytest.mark.parametrize("bad", [1, 2, 3, 4])
async def test_the_item_at_fault_is_found_and_its_neighbours_are_answered(
    engine: Engine, pool: ThreadPoolExecutor, bad: int
) -> None:
    scheduler = scheduler_of(engine, pool)
    items = [0, 1, 2, 3, 4]
    items[bad] = -1
    tasks = await held(scheduler, engine, *items)
    engine.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[bad], RuntimeError)
    assert [r.row for i, r in enumerate(results) if i != bad and isinstance(r, Ran)] == [2 * n for n in items if n >= 0]
    assert [-1] in engine.batches
    assert (await submitted(scheduler, 7)).row == 14
    await scheduler.close()


async def test_a_batch_of_nothing_but_faults_ends(engine: Engine, pool: ThreadPoolExecutor) -> None:
    scheduler = scheduler_of(engine, pool)
    tasks = await held(scheduler, engine, 0, -1, -2, -3, -4)
    engine.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(r) for r in results] == [Ran] + [RuntimeError] * 4
    await scheduler.close()


@pytest.mark.parametrize(
    "fault", [StopIteration, GeneratorExit, asyncio.CancelledError, concurrent.futures.CancelledError, MemoryError]
)
async def test_whatever_an_engine_raises_the_queue_goes_on(
    engine: Engine, pool: ThreadPoolExecutor, fault: type[BaseException]
) -> None:
    scheduler = scheduler_of(engine, pool)
    engine.fault = fault
    (result,) = await asyncio.wait_for(asyncio.gather(submitted(scheduler, -1), return_exceptions=True), 2)
    assert isinstance(result, (RuntimeError, MemoryError))
    assert (await asyncio.wait_for(submitted(scheduler, 7), 2)).row == 14
    await scheduler.close()


@pytest.mark.parametrize("rows", [0, 1, 3])
async def test_an_engine_that_miscounts_answers_nobody_wrongly(engine: Engine, pool: ThreadPoolExecutor, rows: int) -> None:
    scheduler = scheduler_of(engine, pool)
    tasks = await held(scheduler, engine, 0, 1, 2)
    engine.answer = lambda items: [2 * item for item in items] if len(items) == 1 else [99] * rows
    engine.gate.set()
    assert [(await task).row for task in tasks] == [0, 2, 4]  # found right one by one
    await scheduler.close()


# admission


async def test_room_is_held_and_given_back(engine: Engine, pool: ThreadPoolExecutor) -> None:
    scheduler = scheduler_of(engine, pool, max_items=5)
    with scheduler.admit(3):
        assert scheduler.admitted == 3
        with scheduler.admit(2), pytest.raises(Overloaded) as caught, scheduler.admit(1):
            pass
        assert caught.value.limit == 5
        with pytest.raises(Overloaded), scheduler.admit(3):
            pass
        assert scheduler.admitted == 3
    assert scheduler.admitted == 0
    with pytest.raises(ZeroDivisionError), scheduler.admit(5):
        _ = 1 / 0
    assert scheduler.admitted == 0


async def test_when_to_come_back_follows_depth_and_measured_speed(engine: Engine, pool: ThreadPoolExecutor) -> None:
    def retry_after(scheduler: Scheduler[int, int]) -> int:
        with scheduler.admit(100), pytest.raises(Overloaded) as caught, scheduler.admit(1):
            pass
        return caught.value.retry_after

    scheduler = scheduler_of(engine, pool)
    assert retry_after(scheduler) == 5  # 100 items at the guess of 50 ms each
    for _ in range(60):
        with scheduler.admit(1):
            await submitted(scheduler, 1)
    quick = retry_after(scheduler)
    assert 1 <= quick <= 2  # an engine that takes no time, and never less than a second

    def slow(items: Sequence[int]) -> list[int]:
        time.sleep(0.1)
        return list(items)

    engine.answer = slow
    for _ in range(6):
        with scheduler.admit(1):
            await submitted(scheduler, 1)
    assert quick < 3 <= retry_after(scheduler) <= 30  # on its way from 0 to 100 ms an item
    await scheduler.close()


# the end


async def test_closing_finishes_what_runs_and_fails_what_waits(engine: Engine, pool: ThreadPoolExecutor) -> None:
    scheduler = scheduler_of(engine, pool, batch_size=1)
    running, waiting = await held(scheduler, engine, 1, 2)
    closing = asyncio.create_task(scheduler.close())
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await submitted(scheduler, 3)
    with pytest.raises(NotReady), scheduler.admit(1):
        pass
    assert not closing.done()
    engine.gate.set()
    await closing
    assert (await running).row == 2
    with pytest.raises(NotReady):
        await waiting
    assert engine.batches == [[1]]


async def test_closing_twice_or_unused(engine: Engine, pool: ThreadPoolExecutor) -> None:
    scheduler = scheduler_of(engine, pool)
    await scheduler.close()
    await scheduler.close()
    used = scheduler_of(engine, pool)
    await submitted(used, 1)
    await used.close()
    await used.close()


async def test_an_engine_pool_that_is_gone_fails_the_item_only(engine: Engine) -> None:
    pool = ThreadPoolExecutor(1)
    scheduler = scheduler_of(engine, pool)
    pool.shutdown()
    with pytest.raises(RuntimeError):
        await submitted(scheduler, 1)
    await scheduler.close()


@pytest.mark.parametrize("seed", range(12))
async def test_every_item_ends_exactly_once_whatever_happens(seed: int, pool: ThreadPoolExecutor) -> None:
    dice = random.Random(seed)

    class Moody(Engine):
        def __call__(self, items: Sequence[int]) -> list[int]:
            time.sleep(dice.choice((0, 0, 0.001, 0.004)))
            if dice.random() < 0.1:
                return [0] * (len(items) + 1)
            return super().__call__(items)

    engine = Moody()
    scheduler = scheduler_of(engine, pool, max_items=40, batch_size=dice.randint(1, 8))
    outcomes: list[str] = []

    async def one(number: int) -> None:
        await asyncio.sleep(dice.random() * 0.1)
        item = -number if dice.random() < 0.2 else number
        seconds = dice.choice((10.0, 0.005, 0.02))
        try:
            with scheduler.admit(1):
                ran = await scheduler.submit(item, deadline=asyncio.get_running_loop().time() + seconds, limit_s=seconds)
            assert ran.row == 2 * item >= 0
            outcomes.append("answered")
        except (DeadlinePassed, NotReady, Overloaded, RuntimeError) as error:
            outcomes.append(type(error).__name__)
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise

    tasks = [asyncio.create_task(one(number)) for number in range(1, 201)]

    async def leave() -> None:
        for _ in range(40):
            await asyncio.sleep(0.002)
            dice.choice(tasks).cancel()

    leaving = asyncio.create_task(leave())
    await until(lambda: "answered" in outcomes)
    await asyncio.sleep(dice.choice((0, 0.05, 0.2)))
    await scheduler.close()
    async with asyncio.timeout(10):
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await leaving
    assert [r for r in results if isinstance(r, AssertionError)] == []
    never_started = sum(isinstance(r, asyncio.CancelledError) for r in results) - outcomes.count("cancelled")
    assert len(outcomes) + never_started == 200
    assert scheduler.admitted == 0
    assert not scheduler._waiting
    assert scheduler._worker is not None
    assert scheduler._worker.done()
