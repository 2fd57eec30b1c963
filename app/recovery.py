"""Brings a service back whose line is in trouble: the lane is given up, and the model loaded anew until it serves.

It knows nothing of requests. A thread that never comes back cannot be ended, and keeps its model's memory: after a few of them
the process itself is to end, for whoever started it to start it again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from app.classifier import Model
from app.errors import NotReady
from app.lane import ABANDONED, Lane
from app.lanes import Lanes
from app.metrics import Metrics
from model.errors import EngineError, ModelError

logger = logging.getLogger("sknet.service")

MOST_ABANDONED = 3  # lanes at a time whose calls have not come back
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0  # before the model is loaded once more: doubled each time that did not help
STEADY_S = 60.0  # a model that served so long was in order

Hopeless = Callable[[Exception], None]


class Recovery:
    """Watches each lane that `lanes` opens.

    Args:
        load: makes the model that is to serve at present.
        hopeless: told when this process cannot serve any more.
    """

    def __init__(self, lanes: Lanes, metrics: Metrics, load: Callable[[], Model], hopeless: Hopeless | None = None) -> None:
        self._lanes = lanes
        self._metrics = metrics
        self._load = load
        self._hopeless = hopeless or (lambda error: None)
        self._delay_s = 0.0
        self._recovering: asyncio.Task[None] | None = None
        lanes.opened = self._watch

    async def close(self) -> None:
        """Load nothing any more. Lanes that drain go on being watched: a service must not wait for ever to end."""
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.gather(self._recovering, return_exceptions=True)

    def _watch(self, lane: Lane) -> None:
        lane.watch = asyncio.create_task(self._guard(lane, time.monotonic()), name="watch")

    async def _guard(self, lane: Lane, since: float) -> None:
        trouble = await lane.watchdog.trouble()
        self._metrics.troubles.labels(trouble.kind).inc()
        logger.error("%s", trouble.text)
        served = self._lanes.give_up(lane, trouble)
        if served and not self._lanes.draining:
            if time.monotonic() - since > STEADY_S:
                self._delay_s = 0.0
            self._recovering = asyncio.create_task(self._recover(trouble.text), name="recover")

    async def _recover(self, why: str) -> None:
        """Until a model serves, whoever loaded it, or somebody wishes none to."""
        while self._lanes.recovering:
            stuck = sum(thread.name == ABANDONED for thread in threading.enumerate())
            if stuck >= MOST_ABANDONED:
                text = f"{why}; {stuck} such calls are left, so the service must be started anew"
                self._lanes.explain(text)
                self._hopeless(EngineError(text))
                return
            await asyncio.sleep(self._delay_s)
            self._delay_s = min(LONGEST_DELAY_S, max(FIRST_DELAY_S, self._delay_s * 2))
            await self._try(why)

    async def _try(self, why: str) -> None:
        try:
            model = await self._lanes.recover(self._load)
        except NotReady:
            return  # it shuts down
        except Exception as error:
            text = str(error) if isinstance(error, ModelError) else "an error that the log has"
            logger.error("loading the model anew: %s", error, exc_info=None if isinstance(error, ModelError) else error)
            self._lanes.explain(f"{why}; loading the model anew failed: {text}")
            return
        if model is not None:
            logger.info("serving %s from %s again", model.info.variant, model.info.checkpoint)
