"""Where pictures are drawn: one after the other, and only so many as can be finished in time. It never learns what is drawn.

A picture takes from a third of a second to several seconds, so pictures have a line of their own: whoever waits for one holds no
place that an image could have.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from app.errors import Overloaded
from app.scheduler import HEADROOM, each
from app.stage import Stage
from app.threads import pool

MOST = 16  # pictures waited for at once; each holds its image's bytes
YIELDING = 10  # added to the nice value: a picture is less urgent than any answer


class Easel:
    """One thread that draws, and the queue before it."""

    def __init__(self) -> None:
        self._pool = pool(1, "draw", yielding=YIELDING)
        self._stage: Stage[Callable[[], bytes], bytes] = Stage(each, self._pool)
        self._admitted = 0

    @contextmanager
    def admit(self, deadline: float) -> Iterator[None]:
        """A place for one picture, asked for before any other work is done for it. `deadline` in loop time.

        Raises:
            Overloaded: too many wait, or by the time measured it would not be finished.
        """
        left = HEADROOM * (deadline - asyncio.get_running_loop().time())
        late = self._stage.measured and self._stage.seconds_for(self._admitted + 1) > left
        if self._admitted >= MOST or late:
            wait_s = math.ceil(self._stage.seconds_for(self._admitted))
            raise Overloaded("pictures at once", max(1, self._admitted), max(1, wait_s))
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def draw(self, work: Callable[[], bytes], *, deadline: float, limit_s: float) -> bytes:
        """Draw a picture when it is its turn; raises as `Stage.submit`. What was begun is finished, even if nobody waits."""
        return (await self._stage.submit(work, deadline=deadline, limit_s=limit_s)).row

    async def close(self) -> None:
        """Refuse what is new, finish what is being drawn, fail what still waits."""
        await self._stage.close()

    def give_up(self, reasons: Sequence[str]) -> None:
        """Refuse what is new, and fail at once what waits and what is being drawn."""
        self._stage.give_up(reasons)

    def shutdown(self) -> None:
        """End the thread; blocks while it draws."""
        self._pool.shutdown()
