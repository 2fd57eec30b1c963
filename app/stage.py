"""One stage of the line: a queue and the calls that empty it, several side by side, each of a batch. Asyncio and the standard
library only: it never learns what an item is, nor which stage it is.

Greedy, no timer: a call that is free takes its share of what waits, oldest first. Expired and abandoned items are dropped when a
batch is formed. Every future is settled exactly once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Generic, TypeVar

from app.call import Entry, Ran, Turn
from app.ceiling import Ceiling
from app.errors import DeadlinePassed, NotReady

CLOSED = ("the service is shutting down",)
# In a future these would end whoever waits, the whole loop, or nothing at all: asyncio takes them for its own.
_NOT_FOR_FUTURES = (StopIteration, concurrent.futures.CancelledError)
_MEASURED_CALLS = 8  # fewer say little: the first ones pay for imports and allocations

ItemT = TypeVar("ItemT")
RowT = TypeVar("RowT")


class Stage(Generic[ItemT, RowT]):
    """Runs items through `run`, in at most `streams` calls side by side of at most `batch_size` items each.

    Args:
        executor: has a thread for each stream.
        spare: calls handed to it beyond those, so that no thread waits for the loop. What is abandoned there is not run either.
        room: how many items may be taken at present, where what comes after is the limit.
        moved: told whenever an item has left the queue.
        out_of_memory: whether an error of `run` says that the batch was too large.
        guess_s: seconds of an item until they are measured.
        ended: told of each call what it ended with, None where it went well.
        clock: seconds that only ever grow.
    """

    def __init__(
        self,
        run: Callable[[Sequence[ItemT]], Sequence[RowT]],
        executor: Executor,
        *,
        streams: int = 1,
        batch_size: int = 1,
        spare: int = 0,
        room: Callable[[], int] | None = None,
        moved: Callable[[], None] | None = None,
        out_of_memory: Callable[[BaseException], bool] | None = None,
        guess_s: float = 0.0,
        ended: Callable[[BaseException | None], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._executor = executor
        self._streams = streams
        self._most_calls = streams + spare
        self._ceiling = Ceiling(batch_size)
        self._room = room or (lambda: batch_size * streams)
        self._moved = moved or (lambda: None)
        self._out_of_memory = out_of_memory or (lambda error: False)
        self._ended = ended or (lambda error: None)
        self._clock = clock
        self._call_s = guess_s * streams * batch_size  # of one call, measured once there were some
        self._calls = 0
        self._waiting: OrderedDict[Entry[ItemT, RowT], bool] = OrderedDict()  # any can be taken out at once
        self._halves: deque[list[Entry[ItemT, RowT]]] = deque()  # of batches that failed; they go first
        self._running: dict[Turn, list[Entry[ItemT, RowT]]] = {}  # calls
        self._in_hand = 0  # their items
        self._woken = False
        self._closed: Sequence[str] = ()  # why nothing is taken any more
        self._idle = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Items that no call has taken yet."""
        return len(self._waiting)

    @property
    def in_hand(self) -> int:
        """Items of the calls at work."""
        return self._in_hand

    @property
    def batch_size(self) -> int:
        """Most items of a call, at present."""
        return self._ceiling.now

    @property
    def measured(self) -> bool:
        """Whether `seconds_for` rests on calls, not on a guess."""
        return self._calls >= _MEASURED_CALLS

    def oldest(self, skip: int = 0) -> float | None:
        """When, on the stage's clock, the call that has been at work longest began; so many that are older are passed over."""
        begun = sorted(turn.started for turn in self._running if turn.started)
        return begun[skip] if len(begun) > skip else None

    def seconds_for(self, count: int) -> float:
        """How long so many items take when every call is full: the time of calls, not of answers, so that hours with little to do
        and items that nobody waited for teach nothing wrong.
        """
        return count * self._call_s / (self._streams * self._ceiling.now)

    async def submit(self, item: ItemT, *, deadline: float, limit_s: float) -> Ran[RowT]:
        """Wait for an item's turn and result. `deadline` in loop time; cancelling this gives its place up.

        Raises:
            DeadlinePassed: it expired in the queue.
            NotReady: closed meanwhile.
            Exception: whatever `run` raised for this very item.
        """
        loop = asyncio.get_running_loop()
        if self._closed:
            raise NotReady(self._closed)
        if deadline <= loop.time():
            raise DeadlinePassed(limit_s)
        entry: Entry[ItemT, RowT] = Entry([item], deadline, limit_s, loop.create_future(), self._clock())
        del item  # the entry alone holds it, and only until a call has it
        self._waiting[entry] = True
        if self._ceiling.now == 1:
            self._dispatch()
        else:
            self.wake()  # what arrives in the same turn of the loop shares a batch
        try:
            return await entry.future
        finally:
            if entry.future.cancelled():  # its owner left: its memory is freed now, not when its turn comes
                entry.held.clear()
                if self._waiting.pop(entry, False):
                    self._moved()
            del entry  # an error holds this frame: see `_call`

    def wake(self) -> None:
        """Look again, in the next turn of the loop, whether a call can be made."""
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    async def close(self) -> None:
        """Refuse what is new, finish what is being run, fail what still waits."""
        self._closed = self._closed or CLOSED
        while self._waiting:
            entry, _ = self._waiting.popitem(last=False)
            if not entry.future.done():
                entry.future.set_exception(NotReady(CLOSED))
        if self._running or self._halves:
            await self._idle.wait()

    def give_up(self, reasons: Sequence[str]) -> None:
        """Refuse what is new, and fail at once what waits and what is being run: its calls may never come back."""
        self._closed = reasons
        entries = [*self._waiting, *(entry for batch in (*self._halves, *self._running.values()) for entry in batch)]
        self._waiting.clear()
        self._halves.clear()
        self._running.clear()
        self._in_hand = 0
        for entry in entries:
            if not entry.future.done():
                entry.future.set_exception(NotReady(reasons))
        self._idle.set()

    def _dispatch(self) -> None:
        self._woken = False
        # A stream takes no more than its share even while others are busy: they will be free in a moment.
        share = min(self._ceiling.now, max(1, math.ceil(len(self._waiting) / self._streams)))
        while len(self._running) < self._most_calls:
            batch = self._half() or self._take(min(share, self._room()))
            if not batch:
                break
            self._start(batch)
        if self._closed and not self._running and not self._halves:
            self._idle.set()

    def _half(self) -> list[Entry[ItemT, RowT]]:
        now = asyncio.get_running_loop().time()
        while self._halves:
            batch = [entry for entry in self._halves.popleft() if self._is_wanted(entry, now)]
            if batch:
                return batch
        return []

    def _take(self, most: int) -> list[Entry[ItemT, RowT]]:
        """The next batch. What expired is told so."""
        batch: list[Entry[ItemT, RowT]] = []
        if not self._waiting:
            return batch
        now = asyncio.get_running_loop().time()
        while self._waiting and len(batch) < most:
            entry, _ = self._waiting.popitem(last=False)
            if self._is_wanted(entry, now):
                batch.append(entry)
        self._moved()
        return batch

    def _is_wanted(self, entry: Entry[ItemT, RowT], now: float) -> bool:
        if entry.future.done():
            return False
        if entry.deadline <= now:
            entry.future.set_exception(DeadlinePassed(entry.limit_s))
            return False
        return True

    def _start(self, batch: list[Entry[ItemT, RowT]]) -> None:
        loop = asyncio.get_running_loop()
        turn = Turn()
        self._running[turn] = batch
        self._in_hand += len(batch)
        try:
            call = self._executor.submit(self._call, [entry.held for entry in batch], turn)
        except RuntimeError as error:  # the pool is gone
            call = concurrent.futures.Future()
            call.set_exception(error)
            turn.alive += range(len(batch))

        def tell(call: concurrent.futures.Future[Sequence[RowT]]) -> None:
            with suppress(RuntimeError):  # the loop may be gone by now
                loop.call_soon_threadsafe(self._finished, batch, turn, call)

        call.add_done_callback(tell)

    def _call(self, held: list[list[ItemT]], turn: Turn) -> Sequence[RowT]:
        """In a thread of the pool. Even while it waited for one, owners may have left.

        It must not know the entries: an error holds the frames it came through, and with a future among them the two would keep
        each other, and the bytes of every bad image, until the garbage collector comes by.
        """
        turn.started = self._clock()
        items: list[ItemT] = []
        for index, each in enumerate(held):
            for item in each:
                items.append(item)
                turn.alive.append(index)
        try:
            rows = self._run(items) if items else ()
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, _NOT_FOR_FUTURES):
                raise
            raise RuntimeError(f"the call raised {type(error).__name__}") from error
        finally:
            turn.ended = self._clock()
        if len(rows) != len(items):
            raise RuntimeError(f"{len(rows)} rows for {len(items)} items")
        return rows

    def _finished(self, taken: list[Entry[ItemT, RowT]], turn: Turn, call: concurrent.futures.Future[Sequence[RowT]]) -> None:
        if self._running.pop(turn, None) is None:
            return  # given up
        self._in_hand -= len(taken)
        batch = [taken[index] for index in turn.alive]
        if batch:
            self._measure(turn.ended - turn.started)
            error = call.exception()
            if error is None or len(batch) == 1 or not self._out_of_memory(error):  # a batch that is too large is no fault
                self._ended(error)
            if error is None:
                self._settle(batch, call.result(), turn)
            else:
                self._failed(batch, error)
        # Not before the owners were woken: what they hand on to the next stage counts when this one looks for room.
        self.wake()

    def _settle(self, batch: list[Entry[ItemT, RowT]], rows: Sequence[RowT], turn: Turn) -> None:
        self._ceiling.fitted(len(batch))
        for entry, row in zip(batch, rows, strict=True):
            if not entry.future.done():  # its owner may have left while it ran
                took_s = turn.ended - turn.started
                entry.future.set_result(Ran(row, turn.started - entry.since, took_s, len(batch), entry.since))

    def _failed(self, batch: list[Entry[ItemT, RowT]], error: BaseException) -> None:
        """Halve it, until the item at fault stands alone or the batch fits."""
        if self._out_of_memory(error):
            self._ceiling.failed(len(batch))
        if len(batch) > 1:
            middle = len(batch) // 2
            self._halves += (batch[:middle], batch[middle:])
        elif not batch[0].future.done():
            batch[0].future.set_exception(error)

    def _measure(self, seconds: float) -> None:
        self._calls += 1
        # The mean of the first calls, then one that forgets: what was true of other images is gone after a few dozen.
        self._call_s += (seconds - self._call_s) / min(self._calls, _MEASURED_CALLS)
