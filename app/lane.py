"""A lane: one model with its queue, its threads and its watchdog, made and ended together. Knows nothing of requests but how many
are in it.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.easel import Easel
from app.scheduler import Pools, Scheduler
from app.threads import pool
from app.watchdog import Part, Watchdog
from model.errors import OutOfMemory

if TYPE_CHECKING:
    from app.classifier import Model

ABANDONED = "abandoned"  # name of the thread that waits for the calls of a lane that was given up
SLOW = 5.0  # times as long as measured at the start: a full batch on a machine that is busy with other things as well
GUESS_S = 0.05  # of one image in the engine, where its speed was not measured at warm-up


_numbers = itertools.count()


@dataclass(slots=True, eq=False)
class Lane:
    """A model and its queue: read once a request, so that weights and labels cannot mix.

    Whoever reads it enters it in the same turn of the loop, and stays until the answer is made. A lane that was replaced is
    closed when the last one has left: nobody who is inside meets a closed queue, whether admitted already or not.
    """

    model: Model
    scheduler: Scheduler[Any, Any]
    decode_pool: ThreadPoolExecutor
    engine_pool: ThreadPoolExecutor
    watchdog: Watchdog
    easel: Easel
    number: int = field(default_factory=_numbers.__next__)  # no other lane of this process has it
    users: int = 0
    abandoned: bool = False
    watch: asyncio.Task[None] | None = None  # ended with the lane
    _left: asyncio.Event | None = None  # once it is being retired: nobody is inside any more

    def __enter__(self) -> Lane:
        self.users += 1
        return self

    def __exit__(self, *exc: object) -> None:
        self.users -= 1
        if self._left is not None and not self.users:
            self._left.set()

    async def retire(self, limit_s: float) -> None:
        """Close it when the last one has left, or after so many seconds. It must be where nobody can find it any more."""
        self._left = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                if self.users:
                    await self._left.wait()
        await self.close()

    def hurry(self) -> None:
        """Have `retire` wait no longer."""
        if self._left is not None:
            self._left.set()

    async def close(self) -> None:
        """Finish what runs, fail what waits, free the model."""
        await asyncio.gather(self.scheduler.close(), self.easel.close())  # a call that does not come back is still watched
        if self.watch is not None:
            self.watch.cancel()
        if not self.abandoned:
            await asyncio.to_thread(self._free)  # threads end and gigabytes are given back, and the loop still answers

    def abandon(self, reasons: Sequence[str]) -> None:
        """Fail at once all that was accepted. The model is freed when its last call comes back, if it ever does."""
        self.abandoned = True
        self.scheduler.give_up(reasons)
        self.easel.give_up(reasons)
        # A daemon, and none of a pool: the end of the process must not wait for it.
        with suppress(RuntimeError):  # there is room for no thread: then its memory stays
            threading.Thread(target=self._free, name=ABANDONED, daemon=True).start()

    def _free(self) -> None:
        self.decode_pool.shutdown()
        self.engine_pool.shutdown()
        self.easel.shutdown()
        self.model.close()


def open_lane(
    model: Model,
    decode_threads: int,
    *,
    max_items: int,
    admitted: Callable[[int], None],
    stuck_s: float,
    guarded_s: float,
) -> Lane:
    """A lane that runs the model as its engine likes it: so many calls side by side, of at most so many images.

    `admitted` is told by how many images the number of those admitted and not yet answered changes. A call that takes longer than
    `stuck_s` seconds is trouble, or than `guarded_s` where a process that has limits of its own decodes.
    """
    info = model.info
    streams = int(info.streams.value)
    measured_s = 1 / info.images_per_second if info.images_per_second else 0.0
    decode_pool, engine_pool = pool(decode_threads, "decode"), pool(streams, "engine")
    limits: dict[Part, float] = {
        "engine": max(stuck_s, SLOW * measured_s * info.batch_size * streams),
        "decoder": stuck_s,
        "guarded decoder": guarded_s,
    }
    watchdog = Watchdog(lambda: scheduler.oldest(), limits=limits)
    scheduler: Scheduler[Any, Any] = Scheduler(
        model.run,
        Pools(decode_pool, decode_threads, engine_pool),
        max_items=max_items,
        changed=admitted,
        streams=streams,
        batch_size=info.batch_size,
        guess_s=measured_s or GUESS_S,
        out_of_memory=lambda error: isinstance(error, OutOfMemory | MemoryError),
        ended=watchdog.ended,
        apart=lambda: model.apart,
    )
    return Lane(model, scheduler, decode_pool, engine_pool, watchdog, Easel())
