"""A lane: one model with its queue, its threads and its watchdog, made and ended together. Knows nothing of requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.scheduler import Pools, Scheduler
from app.threads import pool
from app.watchdog import Watchdog
from model.errors import OutOfMemory

if TYPE_CHECKING:
    from app.classifier import Model

GUESS_S = 0.05  # of one image in the engine, where its speed was not measured at warm-up


@dataclass(frozen=True, slots=True)
class Lane:
    """A model and its queue: read once a request, so that weights and labels cannot mix."""

    model: Model
    scheduler: Scheduler[Any, Any]
    engine_pool: ThreadPoolExecutor
    watchdog: Watchdog

    async def close(self) -> None:
        """Finish what runs, fail what waits, free the model."""
        await self.scheduler.close()
        self.engine_pool.shutdown()
        self.model.close()

    def abandon(self, reasons: Sequence[str]) -> None:
        """Fail at once all that was accepted. The model is freed when its last call comes back, if it ever does."""
        self.scheduler.give_up(reasons)
        threading.Thread(target=self._free, name="abandoned", daemon=True).start()

    def _free(self) -> None:
        self.engine_pool.shutdown()
        self.model.close()


def open_lane(
    model: Model,
    decode_pool: Executor,
    decode_threads: int,
    *,
    max_items: int,
    admitted: Callable[[int], None],
    stuck_s: float,
) -> Lane:
    """A lane that runs the model as its engine likes it: so many calls side by side, of at most so many images.

    `admitted` is told by how many images the number of those admitted and not yet answered changes. A call that takes longer than
    `stuck_s` seconds is trouble.
    """
    info = model.info
    streams = int(info.streams.value)
    engine_pool = pool(streams, "engine")
    watchdog = Watchdog(lambda: scheduler.oldest, stuck_s=stuck_s)
    scheduler: Scheduler[Any, Any] = Scheduler(
        model.run,
        Pools(decode_pool, decode_threads, engine_pool),
        max_items=max_items,
        changed=admitted,
        streams=streams,
        batch_size=info.batch_size,
        guess_s=1 / info.images_per_second if info.images_per_second else GUESS_S,
        out_of_memory=lambda error: isinstance(error, OutOfMemory | MemoryError),
        ended=watchdog.ended,
    )
    return Lane(model, scheduler, engine_pool, watchdog)
