"""Threads and time that move only when a test says so: every order of events can be had, and none depends on the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class Steps(Executor):
    """A pool whose calls run, one by one and in any order, when they are told to."""

    def __init__(self) -> None:
        self._calls: list[tuple[Future[Any], Callable[[], Any]]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self, index: int = 0) -> None:
        """Run one call; its outcome is known to the loop after `settle`."""
        future, call = self._calls.pop(index)
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - as a pool does
            future.set_exception(error)

    async def step(self, index: int = 0) -> None:
        self.run(index)
        await settle()

    async def run_all(self) -> None:
        """Run what is there, and what comes of it."""
        await settle()
        while self._calls:
            await self.step()


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def drive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make it the loop's own time, so that deadlines pass when it moves."""
        loop.time = self  # type: ignore[method-assign]


async def settle() -> None:
    """Let every task go as far as it can without a thread."""
    for _ in range(20):
        await asyncio.sleep(0)
