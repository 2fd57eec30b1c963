"""Bounded admission, deadlines and batches for one model. Asyncio and the standard library only: it never learns what an
item is.

An item is admitted (counted) before any work is done for it, waits in one queue, and is run with whatever waits beside it:
greedy batches, no timer. Expired and abandoned items are dropped when a batch is formed. Every future is settled exactly once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from app.errors import DeadlinePassed, NotReady, Overloaded

# In a future these would end the worker, or never end it: asyncio takes them for its own.
_ASYNCIO_S_OWN = (StopIteration, GeneratorExit, asyncio.CancelledError, concurrent.futures.CancelledError)

ItemT = TypeVar("ItemT")
RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True)
class Ran(Generic[RowT]):
    """What came of an item, and how long it waited and ran."""

    row: RowT
    queue_s: float
    inference_s: float
    batch_size: int


@dataclass(slots=True, eq=False)
class _Entry(Generic[ItemT, RowT]):
    item: ItemT
    deadline: float  # loop time
    limit_s: float
    future: asyncio.Future[Ran[RowT]]
    since: float = field(default_factory=time.monotonic)


class Scheduler(Generic[ItemT, RowT]):
    """Runs items through `run` in batches of at most `batch_size`, in `executor`."""

    def __init__(
        self, run: Callable[[Sequence[ItemT]], Sequence[RowT]], executor: Executor, *, max_items: int, batch_size: int
    ) -> None:
        self._run = run
        self._executor = executor
        self._max_items = max_items
        self._batch_size = batch_size
        self._waiting: deque[_Entry[ItemT, RowT]] = deque()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._admitted = 0
        self._item_s = 0.05  # seconds from one answer to the next while there is work; a guess until it is measured
        self._answered_at: float | None = None  # when the last one was, unless nothing has been waiting since
        self._closed = False

    @property
    def admitted(self) -> int:
        """Items admitted and not yet answered."""
        return self._admitted

    @contextmanager
    def admit(self, count: int) -> Iterator[None]:
        """Hold room for `count` items.

        Raises:
            Overloaded: there is none; says when to come back, by the queue's depth and the measured speed.
            NotReady: closed.
        """
        if self._closed:
            raise NotReady(["the service is shutting down"])
        if self._admitted + count > self._max_items:
            raise Overloaded("images at once", self._max_items, self.retry_after())
        if self._admitted == 0:
            self._answered_at = time.monotonic()
        self._admitted += count
        try:
            yield
        finally:
            self._admitted -= count
            self._measure(count)

    def retry_after(self) -> int:
        """Whole seconds until what is admitted now will have been answered, at the measured pace; at least 1."""
        return max(1, math.ceil(self._admitted * self._item_s))

    def _measure(self, count: int) -> None:
        """Learn the pace from answer to answer: decoding counts as the engine does, whichever is the bottleneck."""
        now = time.monotonic()
        if self._answered_at is not None:
            self._item_s += 0.1 * ((now - self._answered_at) / count - self._item_s)
        self._answered_at = now if self._admitted else None

    async def submit(self, item: ItemT, *, deadline: float, limit_s: float) -> Ran[RowT]:
        """Wait for an item's turn and result. `deadline` in loop time; cancelling this gives its place up.

        Raises:
            DeadlinePassed: it expired in the queue.
            NotReady: closed meanwhile.
            Exception: whatever `run` raised for this very item.
        """
        if self._closed:
            raise NotReady(["the service is shutting down"])
        entry: _Entry[ItemT, RowT] = _Entry(item, deadline, limit_s, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._arrived.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="scheduler")
        try:
            return await entry.future
        finally:
            if entry.future.cancelled() and entry in self._waiting:
                self._waiting.remove(entry)  # its pixels are freed now, not when its turn comes

    async def close(self) -> None:
        """Refuse what is new, finish what is being run, fail what still waits."""
        self._closed = True
        self._arrived.set()
        if self._worker is not None:
            await self._worker
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(NotReady(["the service is shutting down"]))

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if self._closed:
                return
            batch = self._take()
            if batch:
                await self._run_batch(batch)
            else:
                self._arrived.clear()

    def _take(self) -> list[_Entry[ItemT, RowT]]:
        """The next batch. What expired is told so; what was abandoned (its future is cancelled) is forgotten."""
        batch: list[_Entry[ItemT, RowT]] = []
        now = asyncio.get_running_loop().time()
        while self._waiting and len(batch) < self._batch_size:
            entry = self._waiting.popleft()
            if entry.future.done():
                continue
            if entry.deadline <= now:
                entry.future.set_exception(DeadlinePassed(entry.limit_s))
                continue
            batch.append(entry)
        return batch

    def _call(self, items: list[ItemT]) -> Sequence[RowT]:
        try:
            rows = self._run(items)
        except _ASYNCIO_S_OWN as error:
            raise RuntimeError(f"the engine raised {type(error).__name__}") from error
        if len(rows) != len(items):
            raise RuntimeError(f"{len(rows)} rows for {len(items)} items")
        return rows

    async def _run_batch(self, batch: list[_Entry[ItemT, RowT]]) -> None:
        """Run a batch; where it fails, halve it until the item at fault stands alone."""
        started = time.monotonic()
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._executor, self._call, [e.item for e in batch])
        except Exception as error:  # noqa: BLE001 - the loop must survive whatever an engine raises; the item's owner gets it
            if len(batch) == 1:
                if not batch[0].future.done():
                    batch[0].future.set_exception(error)
                return
            middle = len(batch) // 2
            await self._run_batch(batch[:middle])
            await self._run_batch(batch[middle:])
            return
        seconds = time.monotonic() - started
        for entry, row in zip(batch, rows, strict=True):
            if not entry.future.done():  # its owner may have left while it ran
                entry.future.set_result(Ran(row, started - entry.since, seconds, len(batch)))
