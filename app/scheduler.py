"""Admission and the line behind it, for one model: images are counted and promised a place before any work is done for them,
then prepared, then run. Asyncio and the standard library only: it never learns what an image is.

Whoever cannot be answered in time by the depth of the queue and the speed measured is refused at once. The line prepares no more
than the engine can soon take: what is ready costs memory, and on a processor both want the same cores.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.call import Ran
from app.errors import AppError, NotReady, Overloaded
from app.stage import CLOSED, Stage
from app.watchdog import Part

# An image is taken while the queue fills no more than this part of its time: the speed is a mean, and an answer just too late is
# work for nothing. A queue that never empties loses no throughput by being shorter.
HEADROOM = 0.8

ItemT = TypeVar("ItemT")
RowT = TypeVar("RowT")
AnyT = TypeVar("AnyT")


@dataclass(frozen=True)
class Pools:
    """Where the work of a line is done: threads that prepare, and a thread for each stream of the engine."""

    prepare: Executor
    prepare_threads: int
    engine: Executor


class Places:
    """Room for some images, held while this context is; each image takes its place out of it and gives it back by itself."""

    def __init__(self, scheduler: Scheduler[Any, Any], count: int, deadline: float) -> None:
        self._scheduler = scheduler
        self._left = count
        self._deadline = deadline

    def __enter__(self) -> Places:
        return self

    def __exit__(self, *exc: object) -> None:
        left, self._left = self._left, 0
        self._scheduler._leave(left)

    @contextmanager
    def take(self) -> Iterator[None]:
        """One place: of those held, or a new one where none is left.

        Raises:
            AppError: as `Scheduler.admit`.
        """
        if self._left:
            self._left -= 1
        else:
            self._scheduler._enter(1, self._deadline)
        try:
            yield
        finally:
            self._scheduler._leave(1)


class Scheduler(Generic[ItemT, RowT]):
    """Admits, prepares and runs.

    Args:
        run: items -> rows, the engine's call.
        streams: calls of it side by side. batch_size: most items of a call.
        max_items: most items admitted at once.
        guess_s: seconds of an item in the engine until they are measured.
        changed: told by how many the number of admitted items changes.
        out_of_memory: whether an error of `run` says that the batch was too large.
        ended: told of each call of `run` what it ended with, None where it went well.
        apart: how many preparations wait for a process that does them, and that has limits of its own.
    """

    def __init__(
        self,
        run: Callable[[Sequence[ItemT]], Sequence[RowT]],
        pools: Pools,
        *,
        max_items: int,
        streams: int = 1,
        batch_size: int = 1,
        guess_s: float = 0.05,
        changed: Callable[[int], None] | None = None,
        out_of_memory: Callable[[BaseException], bool] | None = None,
        ended: Callable[[BaseException | None], None] | None = None,
        apart: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_items = max_items
        self._changed = changed or (lambda count: None)
        self._apart = apart or (lambda: 0)
        self._admitted = 0
        self._closed: Sequence[str] = ()  # why nothing is admitted any more
        self._preparing: Stage[Callable[[], Any], Any] = Stage(
            each,
            pools.prepare,
            streams=pools.prepare_threads,
            spare=pools.prepare_threads,  # 8 % more images with two busy cores, where the loop has to wait for its turn
            room=self._room,
            clock=clock,
        )
        self._engine: Stage[ItemT, RowT] = Stage(
            run,
            pools.engine,
            streams=streams,
            batch_size=batch_size,
            moved=self._preparing.wake,
            out_of_memory=out_of_memory,
            guess_s=guess_s,
            ended=ended,
            clock=clock,
        )
        # Ready or nearly so: one full round of the engine, and what every thread has in hand.
        self._ahead = streams * batch_size + pools.prepare_threads

    @property
    def admitted(self) -> int:
        """Items admitted and not yet answered."""
        return self._admitted

    @property
    def unprepared(self) -> int:
        """Items that wait to be prepared."""
        return self._preparing.waiting

    @property
    def ready(self) -> int:
        """Items prepared that wait for the engine."""
        return self._engine.waiting

    def oldest(self) -> dict[Part, float]:
        """When the call that has been at work longest began, by who does it; who rests is left out."""
        begun: dict[Part, float | None] = {
            "decoder": self._preparing.oldest(self._apart()),
            "guarded decoder": self._preparing.oldest(),
            "engine": self._engine.oldest(),
        }
        return {part: at for part, at in begun.items() if at is not None}

    def admit(self, count: int, deadline: float) -> Places:
        """Hold room for `count` items that are wanted by `deadline`, in loop time. For none of them it is only asked whether the
        line is open.

        Raises:
            Overloaded: there is no room, or no hope to be in time; says when to come back.
            NotReady: closed.
        """
        self._enter(count, deadline)
        return Places(self, count, deadline)

    def refusal(self, count: int, deadline: float) -> AppError | None:
        """What `admit` would raise now; costs next to nothing."""
        if self._closed:
            return NotReady(self._closed)
        if count and self._admitted + count > self._max_items:
            return Overloaded("images at once", self._max_items, self.retry_after())
        left_s = deadline - asyncio.get_running_loop().time()
        # With nobody ahead there is always hope, so that a speed once measured too low is measured again; and whose time is up
        # already is told so, not to come back.
        if count and self._admitted and left_s > 0:
            ahead_s = self._seconds_for(self._admitted + 1, guessing=False)
            if ahead_s > left_s * HEADROOM:
                in_time = max(1, int((self._admitted + 1) * left_s * HEADROOM / ahead_s))
                return Overloaded(f"images that can be answered within {left_s:.2g} s", in_time, self.retry_after())
        return None

    def retry_after(self) -> int:
        """Whole seconds until what is admitted now will have been answered, at the measured speed; at least 1."""
        return max(1, math.ceil(self._seconds_for(self._admitted)))

    async def prepare(self, work: Callable[[], AnyT], *, deadline: float, limit_s: float) -> Ran[AnyT]:
        """Do an item's preparation in a thread, when it is its turn. Raises as `Stage.submit`."""
        return await self._preparing.submit(work, deadline=deadline, limit_s=limit_s)

    async def submit(self, item: ItemT, *, deadline: float, limit_s: float) -> Ran[RowT]:
        """Run a prepared item, when it is its turn. Raises as `Stage.submit`."""
        return await self._engine.submit(item, deadline=deadline, limit_s=limit_s)

    async def close(self) -> None:
        """Refuse what is new, finish what is being prepared or run, fail what still waits."""
        self._closed = self._closed or CLOSED
        await asyncio.gather(self._preparing.close(), self._engine.close())

    def give_up(self, reasons: Sequence[str]) -> None:
        """Refuse what is new and fail all that was accepted, at once: a call at work may never come back."""
        self._closed = reasons
        self._preparing.give_up(reasons)
        self._engine.give_up(reasons)

    def _room(self) -> int:
        return self._ahead - self._engine.waiting - self._preparing.in_hand

    def _seconds_for(self, ahead: int, *, guessing: bool = True) -> float:
        """How long so many take from now on: the slower stage decides, with what has not passed it."""
        unprepared = max(0, ahead - self._engine.waiting - self._engine.in_hand)
        counts = ((self._preparing, unprepared), (self._engine, ahead))
        return max((stage.seconds_for(count) for stage, count in counts if guessing or stage.measured), default=0.0)

    def _enter(self, count: int, deadline: float) -> None:
        refusal = self.refusal(count, deadline)
        if refusal is not None:
            raise refusal
        self._admitted += count
        self._changed(count)

    def _leave(self, count: int) -> None:
        self._admitted -= count
        self._changed(-count)


def each(works: Sequence[Callable[[], AnyT]]) -> list[AnyT]:
    """What a stage runs whose items are calls themselves."""
    return [work() for work in works]
