"""Another model, because a client or a signal asks for one: in this process, or as a worker by way of all the others.

It knows what the settings say of a checkpoint; which references a client may give is decided before (`app.references`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from app.classifier import Model
from app.control import Gone, Peer
from app.errors import CheckpointRefused, NotReady
from app.lanes import DRAINING, Lanes
from app.references import same
from app.settings import Settings
from model.errors import ModelError

logger = logging.getLogger("sknet.service")

Load = Callable[[Settings], Model]
ValueT = TypeVar("ValueT")


class Swaps:
    """Changes the model of a service.

    Args:
        load: makes the model that settings name.
        control: this worker's end of the line to its supervisor; None where this process is the service.
        reference, loaded: what the service serves by now, where this is not its first process.
    """

    def __init__(
        self,
        lanes: Lanes,
        settings: Settings,
        load: Load,
        *,
        control: socket.socket | None = None,
        reference: str | None = None,
        loaded: bool = True,
    ) -> None:
        self._lanes = lanes
        self._settings = settings
        self._load_model = load
        self._peer = None if control is None else Peer(control, "ask", self._act)
        self._reference = reference
        self._loaded = loaded
        self._held: tuple[Model, str | None] | None = None  # prepared, with its reference, and not yet asked to serve
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Serve the first model.

        Raises:
            ModelError: it cannot be loaded.
        """
        if self._peer is not None:
            self._keep(self._peer.listen())
        if self._loaded:
            await self._lanes.start(lambda: self._load_model(self._settings_for(self._reference)))
        else:
            self._lanes.rest()

    def again(self) -> Model:
        """Load what is to serve at present once more; in any thread. Raises what loading does."""
        return self._load_model(self._settings_for(self._reference))

    async def load(self, reference: str | None) -> Model:
        """Serve another checkpoint, None for the one of the settings, in all of the service; what came of it is logged.

        It goes on when whoever waits for it leaves.

        Raises:
            CheckpointRefused: it cannot serve; what served before still does.
            Overloaded: one is being loaded, and another waits.
            NotReady: the service shuts down, or a worker ended meanwhile.
        """
        return await asyncio.shield(self._keep(self._load(reference)))

    async def unload(self) -> None:
        """Serve nothing until something is loaded, in all of the service. Raises as `load`."""
        await asyncio.shield(self._keep(self._unload()))

    def reload(self) -> None:
        """Load what the settings name once more, since it may have changed on the disk. For a signal: nobody waits."""

        async def load() -> None:
            try:
                await self._load(None)
            except CheckpointRefused:
                pass  # and is logged
            except Exception as error:  # noqa: BLE001 - nobody waits for it
                logger.error("loading it once more: %s", error)

        self._keep(load())

    async def close(self) -> None:
        """Give up what is being loaded."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._drop()

    async def _load(self, reference: str | None) -> Model:
        if self._peer is None:
            model = await self._refusing(reference, self._lanes.load(self._maker(reference)))
            self._reference = reference
            return self._told(model)
        await self._by_all("load", reference)
        return self._lanes.current().model

    async def _unload(self) -> None:
        if self._peer is None:
            await self._lanes.unload()
            logger.info("the model was unloaded")
        else:
            await self._by_all("unload", None)

    async def _by_all(self, what: str, reference: str | None) -> None:
        assert self._peer is not None
        try:
            await self._peer.ask(what, reference)
        except Gone:  # the supervisor ended, and this process is about to
            raise NotReady(DRAINING) from None

    async def _act(self, what: str, reference: str | None) -> None:
        """What the supervisor asks of this worker."""
        match what:
            case "prepare":
                await self._drop()
                self._held = await self._refusing(reference, self._lanes.make(self._maker(reference))), reference
            case "commit" if self._held is not None:
                (held, self._reference), self._held = self._held, None
                self._told(self._lanes.switch(held))
            case "abort":
                await self._drop()
            case "unload":
                self._lanes.rest()
                logger.info("the model was unloaded")
            case _:
                raise RuntimeError(f"there is nothing to {what}")

    async def _refusing(self, reference: str | None, work: Coroutine[Any, Any, ValueT]) -> ValueT:
        try:
            return await work
        except ModelError as error:
            logger.warning("the checkpoint %s cannot serve: %s", reference or self._settings.checkpoint, error)
            raise CheckpointRefused(str(error)) from error

    def _told(self, model: Model) -> Model:
        info = model.info
        logger.info(
            "serving %s from %s (%s, %s, %s, %s), loaded in %.1f s",
            info.variant, info.checkpoint, info.digest, info.engine.value, info.device.value, info.dtype.value, info.load_seconds,
        )  # fmt: skip
        return model

    def _maker(self, reference: str | None) -> Callable[[], Model]:
        settings = self._settings_for(reference)
        logger.info("loading %s beside what serves", settings.checkpoint)
        return lambda: self._load_model(settings)

    def _settings_for(self, reference: str | None) -> Settings:
        """What the settings say of one checkpoint is not true of another."""
        if reference is None or same(reference, self._settings.checkpoint):
            return self._settings
        own = {"variant": None, "labels_file": None, "checkpoint_sha256": None}
        return self._settings.model_copy(update={"checkpoint": reference, **own})

    async def _drop(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            await asyncio.to_thread(held[0].close)

    def _keep(self, work: Coroutine[Any, Any, ValueT]) -> asyncio.Task[ValueT]:
        """A task of its own, which outlives whoever waits for it."""
        task = asyncio.create_task(work, name="swap")
        self._tasks.add(task)

        def ended(task: asyncio.Task[ValueT]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                task.exception()  # told to whoever waits, if anybody still does

        task.add_done_callback(ended)
        return task
