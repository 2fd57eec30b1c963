"""Watches the calls of one line: one that does not come back, or several in a row that fail. Asyncio and the standard library
only: it judges, and others act.

A thread inside native code cannot be ended from outside. What can be done is to stop waiting for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

FAILURES = 5  # in a row: one bad image among good ones fails alone, and a batch that is halved succeeds in between
LOOKS = 4  # in the time that a call may take, at least


Part = Literal["engine", "decoder", "guarded decoder"]
Kind = Literal["stuck engine", "stuck decoder", "failing engine"]
_STUCK: dict[Part, Kind] = {
    "engine": "stuck engine",
    "decoder": "stuck decoder",
    "guarded decoder": "stuck decoder",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong, as a word for counts and in words for everybody."""

    kind: Kind
    text: str


class Watchdog:
    """One line's watchdog.

    Args:
        oldest: when the oldest call of each kind began, on the clock.
        limits: seconds that a call of each kind may take.
        clock: seconds that only ever grow.
    """

    def __init__(
        self,
        oldest: Callable[[], Mapping[Part, float]],
        *,
        limits: Mapping[Part, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._oldest = oldest
        self._limits = limits
        self._clock = clock
        self._every_s = min(1.0, min(limits.values()) / LOOKS)
        self._awake_since = self._looked = clock()
        self._failures = 0
        self._failing = asyncio.Event()

    def ended(self, error: BaseException | None) -> None:
        """Hear what a call of the engine ended with, None where it went well."""
        self._failures = self._failures + 1 if error is not None else 0
        if self._failures >= FAILURES:
            self._failing.set()

    async def trouble(self) -> Trouble:
        """Wait until something is wrong."""
        while not self._failing.is_set():
            stuck = self._stuck()
            if stuck is not None:
                return stuck
            try:
                async with asyncio.timeout(self._every_s):
                    await self._failing.wait()
            except TimeoutError:
                pass  # time to look again
        return Trouble("failing engine", f"the engine failed {FAILURES} times in a row")

    def _stuck(self) -> Trouble | None:
        now = self._clock()
        if now - self._looked > self._every_s * 2 + 1:
            # This process itself did not run (stopped, or a machine that slept): its calls had no more time than it had.
            self._awake_since = now
        self._looked = now
        for part, began in self._oldest().items():
            if now - max(began, self._awake_since) > self._limits[part]:
                return Trouble(_STUCK[part], f"a call of the {part} has not come back for {self._limits[part]:g} s")
        return None
