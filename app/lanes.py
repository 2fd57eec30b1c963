"""Which lane serves: a model loaded beside the one that does, one assignment to put it in its place, and the end of the old one.

It knows nothing of requests, nor where a model comes from: who asks for one brings the function that loads it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from app.errors import NotReady, Overloaded
from app.lane import Lane, open_lane
from app.metrics import Metrics
from app.settings import Settings
from app.threads import beside
from app.watchdog import Trouble
from model.errors import ModelError
from model.guard import BEGIN_S
from model.wire import PATIENCE

if TYPE_CHECKING:
    from app.classifier import Model

logger = logging.getLogger("sknet.service")

LOADING = ("the model is being loaded",)
UNLOADED = ("the model was unloaded",)
DRAINING = ("the service is shutting down",)
# Until an image is decoded; as much again as its guard gives, since on a busy machine all else takes long too.
DECODER_START_S = 2 * BEGIN_S
AT_ONCE = 2  # one that loads, and one more that waits for it: each that waits is a client on a connection


class Lanes:
    """The lane that serves, and what may take its place.

    Models are loaded one at a time, so that there are never more than two, old ones that drain aside.
    """

    def __init__(self, settings: Settings, metrics: Metrics, decode_threads: int) -> None:
        self._settings = settings
        self._metrics = metrics
        self._decode_threads = decode_threads
        self._lane: Lane | None = None
        self._idle: tuple[str, tuple[str, ...]] = ("loading", LOADING)  # state and reasons while no lane serves
        self._draining = False
        self._making = 0
        self._asking = 0
        self._turn = asyncio.Lock()
        self._work: asyncio.Task[Model] | None = None  # that loads beside a service; nobody waits for it at the end
        self._retiring: dict[Lane, asyncio.Task[None]] = {}
        self._last_s = 1.0  # the last load took
        self.opened: Callable[[Lane], None] = lambda lane: None  # told of each lane that begins to serve

    # what there is

    @property
    def state(self) -> str:
        """loading, ready, recovering, unloaded, failed or draining."""
        if self._draining:
            return "draining"
        if self._lane is not None:
            return "ready"
        return "loading" if self._making and not self.recovering else self._idle[0]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ready; empty when it is."""
        if self._draining:
            return DRAINING
        if self._lane is not None:
            return ()
        return LOADING if self._making and not self.recovering else self._idle[1]

    @property
    def draining(self) -> bool:
        """Whether the service shuts down."""
        return self._draining

    @property
    def recovering(self) -> bool:
        """Whether nothing serves because what did was given up."""
        return self._lane is None and not self._draining and self._idle[0] == "recovering"

    @property
    def lane(self) -> Lane | None:
        """The one that serves. To use it over any `await`, enter it at once."""
        return self._lane

    def current(self) -> Lane:
        """The same.

        Raises:
            NotReady: there is none.
        """
        if self._lane is None:
            raise NotReady(self.reasons)
        return self._lane

    # what changes it

    async def start(self, load: Callable[[], Model]) -> None:
        """Load the first model off the loop and serve it.

        Raises:
            ModelError: it cannot be loaded; the state is "failed" and says why.
        """
        async with self._turn:
            try:
                model = await beside(load, lambda model: model.close())
            except Exception as error:
                self._metrics.loads.labels("refused").inc()
                self._idle = ("failed", (str(error) if isinstance(error, ModelError) else "the model could not be loaded",))
                raise
            if self._draining:  # asked to stop while it loaded
                model.close()
                return
            self.switch(model)

    async def load(self, load: Callable[[], Model]) -> Model:
        """Load a model beside the one that serves, then put it in its place; in turn where others ask for the same.

        Raises:
            ModelError: it cannot serve. Whatever goes wrong, what served before still does.
            Overloaded: one loads and another waits already.
            NotReady: the service shuts down, or began to meanwhile.
        """
        with self._place():
            async with self._turn:
                return self.switch(await self._make(load))

    async def recover(self, load: Callable[[], Model]) -> Model | None:
        """As `load`, while the service recovers: None where somebody else loaded or unloaded meanwhile, and that holds.

        Raises:
            ModelError: it cannot serve.
            NotReady: the service shuts down, or began to meanwhile.
        """
        async with self._turn:
            if not self.recovering:
                return None
            model = await self._make(load)
            if self.recovering:
                return self.switch(model)
            await asyncio.to_thread(model.close)
            return None

    async def make(self, load: Callable[[], Model]) -> Model:
        """Only the first half of `load`: a model that `switch` can put in place, or its owner close. Raises as `load`."""
        with self._place():
            async with self._turn:
                return await self._make(load)

    def switch(self, model: Model) -> Model:
        """Serve this model from now on; the old one finishes what it accepted, refuses nobody who met it, and is freed.

        Raises:
            NotReady: the service shuts down; the model is closed.
        """
        if self._draining:
            model.close()
            raise NotReady(DRAINING)
        lane = open_lane(
            model,
            self._decode_threads,
            max_items=self._settings.max_queue,
            admitted=self._metrics.queue_changed,
            stuck_s=self._settings.stuck_s,
            guarded_s=self._settings.stuck_s + DECODER_START_S + PATIENCE * self._settings.decode_s,
        )
        self._metrics.observe_model(self._settings.model_name, model.info)
        self._metrics.loads.labels("loaded").inc()
        self._last_s = model.info.load_seconds
        old, self._lane = self._lane, lane
        self.opened(lane)
        self._retire(old)
        return model

    async def unload(self) -> None:
        """Serve nothing from now on; what was accepted is finished. In turn with loads.

        Raises:
            Overloaded, NotReady: as `load`.
        """
        with self._place():
            async with self._turn:
                self.rest()

    def rest(self) -> None:
        """Serve nothing from now on, or not before something is loaded."""
        old, self._lane = self._lane, None
        self._idle = ("unloaded", UNLOADED)
        self._metrics.observe_unload()
        self._retire(old)

    def give_up(self, lane: Lane, trouble: Trouble) -> bool:
        """Fail at once all that a lane accepted, and wait for it no longer. Whether it was the one that served."""
        served = lane is self._lane
        if served:
            self._lane = None
            self._idle = ("recovering", (f"{trouble.text}; the model is being loaded anew",))
            self._metrics.observe_unload()
        lane.abandon([trouble.text])
        return served

    def explain(self, why: str) -> None:
        """Tell, while it recovers, what is known by now."""
        if self.recovering:
            self._idle = ("recovering", (why,))

    def drain(self) -> None:
        """Say from now on that the service is shutting down. What serves still does; what loads beside it is given up."""
        self._draining = True

        def tell() -> None:
            self._metrics.observe_drain()
            if self._work is not None and not self._work.done():
                self._work.cancel()

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            tell()
            return
        # From a signal's handler, which may stand anywhere: in the loop's own code, or holding the lock that every metric takes.
        loop.call_soon_threadsafe(tell)

    async def close(self) -> None:
        """Refuse what is new, finish what runs, free every model."""
        self.drain()
        lane, self._lane = self._lane, None
        for old in self._retiring:
            old.hurry()
        if lane is not None:
            await lane.close()
        await asyncio.gather(*self._retiring.values(), return_exceptions=True)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._draining:
            raise NotReady(DRAINING)
        if self._asking >= AT_ONCE:
            raise Overloaded("loads of a model", AT_ONCE, max(1, math.ceil(self._last_s)))
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1

    async def _make(self, load: Callable[[], Model]) -> Model:
        if self._draining:
            raise NotReady(DRAINING)
        self._making += 1
        self._work = asyncio.ensure_future(beside(load, lambda model: model.close()))
        try:
            return await self._work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._draining and task is not None and not task.cancelling():
                raise NotReady(DRAINING) from None  # it was given up, not whoever waits for it
            raise
        except Exception:
            self._metrics.loads.labels("refused").inc()
            raise
        finally:
            self._making -= 1
            self._work = None

    def _retire(self, lane: Lane | None) -> None:
        if lane is None:
            return
        # Nobody stays longer than a request's deadline: with that time nobody is ever refused by a lane that was replaced.
        limit_s = max(self._settings.drain_s, self._settings.deadline_s + 1)
        task = self._retiring[lane] = asyncio.create_task(lane.retire(limit_s), name="retire")

        def retired(task: asyncio.Task[None]) -> None:
            del self._retiring[lane]
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("a model that was replaced could not be closed", exc_info=error)

        task.add_done_callback(retired)
