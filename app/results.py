"""Answers remembered, and questions asked once: a bounded cache with single flight. Asyncio and the standard library only: it
never learns what is asked or answered.

What is asked while the same is being worked out waits for that one answer. The work belongs to nobody: it goes on while
anybody waits, whoever asked first, and ends when the last one leaves. Errors are not remembered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


@dataclass(slots=True, eq=False)
class _Flight(Generic[ValueT]):
    task: asyncio.Task[ValueT]
    askers: int = 0


class Results(Generic[KeyT, ValueT]):
    """At most `entries` values, the least recently used forgotten first.

    Args:
        shared: errors that lie in the question, so that everybody who waits for it gets them. Any other error is the bad luck of
            who asked first, and the next one tries again.
    """

    def __init__(self, entries: int, *, shared: type[Exception]) -> None:
        self._entries = entries
        self._shared = shared
        self._known: OrderedDict[KeyT, ValueT] = OrderedDict()
        self._flights: dict[KeyT, _Flight[ValueT]] = {}

    def __len__(self) -> int:
        return len(self._known)

    @property
    def in_flight(self) -> int:
        """Values that are being worked out."""
        return len(self._flights)

    def missing(self, keys: Iterable[KeyT]) -> int:
        """How many of these are neither known nor being worked out; the same one twice is one."""
        return len({key for key in keys if key not in self._known and key not in self._flights})

    async def ask(self, key: KeyT, work: Callable[[], Coroutine[Any, Any, ValueT]]) -> tuple[ValueT, bool]:
        """The value of a key, and whether it was worked out for this asker. Cancelling this leaves the others alone.

        Raises:
            Exception: whatever this asker's own work raised, or a shared error of the one it waited for.
        """
        while True:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key], False
            flight = self._flights.get(key)
            own = flight is None
            if flight is None:
                flight = self._start(key, work())
            await self._wait(key, flight)
            if own or self._is_for_all(flight.task):
                try:
                    return flight.task.result(), own
                finally:
                    del flight  # an error holds this frame: a circle would keep what was asked for longer than needed

    def _is_for_all(self, task: asyncio.Task[ValueT]) -> bool:
        if task.cancelled():
            return False
        error = task.exception()
        return error is None or isinstance(error, self._shared)

    def _start(self, key: KeyT, work: Coroutine[Any, Any, ValueT]) -> _Flight[ValueT]:
        flight = self._flights[key] = _Flight(asyncio.create_task(work, name="result"))

        def landed(task: asyncio.Task[ValueT]) -> None:
            self._forget(key, flight)
            if not task.cancelled() and task.exception() is None:
                self._remember(key, task.result())

        flight.task.add_done_callback(landed)
        return flight

    async def _wait(self, key: KeyT, flight: _Flight[ValueT]) -> None:
        flight.askers += 1
        try:
            await asyncio.wait([flight.task])  # unlike awaiting the task itself, being cancelled here does not cancel it
        finally:
            flight.askers -= 1
            if flight.askers == 0 and not flight.task.done():
                self._forget(key, flight)  # at once: nobody must board what is being given up
                flight.task.cancel()

    def _forget(self, key: KeyT, flight: _Flight[ValueT]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _remember(self, key: KeyT, value: ValueT) -> None:
        self._known[key] = value
        self._known.move_to_end(key)
        if len(self._known) > self._entries:
            self._known.popitem(last=False)
