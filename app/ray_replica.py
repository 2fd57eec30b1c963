"""One replica of a Ray Serve deployment: the same application in the place of the HTTP server's process.

Ray calls the methods here: the application once, `reconfigure` at the start and for each other checkpoint, `check_health` every
few seconds. A replica takes of its machine what Ray gave it. It knows of no other replica but through the board.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.classifier import Model
from app.errors import AppError, ScopeForbidden
from app.exposure import warnings_of
from app.keys import ADMIN, Keys
from app.logs import configure
from app.main import create_app, load_model
from app.ray_board import Finds, ReportedMetrics, Reporter, Serves, board_of
from app.services import Services
from app.settings import PREFIX, Settings, SettingsError, SpanVariables, load_settings, unknown_variables
from app.swaps import Load, Swaps
from model.errors import ModelError

logger = logging.getLogger("sknet.ray")

NO_SPANS = SpanVariables()


class UserConfig(BaseModel):
    """What `user_config` may say."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: str | None = Field(None, min_length=1, description="Served instead of SKNET_CHECKPOINT.")
    revision: int | str | None = Field(None, description="Another value has the same checkpoint read once more.")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a replica runs, and what is its own there."""

    application: str
    replica: str
    rank: int
    resources: Mapping[str, float]

    @classmethod
    def here(cls) -> Self:
        """What Ray says of the process that asks."""
        import ray
        from ray import serve

        context = serve.get_replica_context()
        resources = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
        return cls(context.app_name, context.replica_tag, context.rank.rank, resources)

    @property
    def cpus(self) -> int:
        """Whole processors, at least one: Ray counts them, but holds nobody to them."""
        return max(1, math.floor(self.resources.get("CPU", 0)))


def share_of(settings: Settings, place: Place) -> Settings:
    """The settings of one replica: threads for its processors, and a GPU only where Ray gave it one, or a part of one.

    What is Ray's business is off: worker processes, and ports of this process's own, of which a machine has one each.
    """
    own: dict[str, object] = {"workers": 1, "grpc_port": 0, "threads": settings.threads or place.cpus}
    if settings.device == "auto":
        own["device"] = "cuda" if place.resources.get("GPU") else "cpu"
    return settings.model_copy(update=own)


class ReplicaSwaps(Swaps):
    """Changes the model of one replica as `user_config` says. HTTP reaches one replica of many, so it may change none."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._serving = False

    @property
    def serves(self) -> Serves:
        """The checkpoint that it was told to serve, None for what the settings name; nothing before it does."""
        return (self._reference,) if self._serving else ()

    async def start(self) -> None:
        """Nothing yet: which checkpoint it is comes with `user_config`."""

    async def serve(self, reference: str | None) -> None:
        """Serve the first model, or another in the place of the one that serves.

        Raises:
            ModelError: it cannot be loaded, and nothing serves.
            CheckpointRefused: it cannot serve; what served before still does.
            NotReady: the service shuts down.
        """
        if self._serving:
            await super().load(reference)
            return
        self._reference = reference
        await super().start()
        self._serving = True
        self._told(self._lanes.current().model)

    async def load(self, reference: str | None) -> Model:
        raise _by_user_config()

    async def unload(self) -> None:
        raise _by_user_config()


def _by_user_config() -> ScopeForbidden:
    return ScopeForbidden(
        "this is one replica of several, and a call would change it alone: put the checkpoint into user_config of the Ray Serve "
        "application, which changes them all",
        ADMIN,
    )


class Replica:
    """The class of the deployment.

    Args:
        given: settings by name, from where the application was built: over this machine's environment.
        keyed: whether there were keys, which are not sent along: then this machine's environment must have some as well.
        ignored: variables there that look like settings and are none. What is said of them is said by the first replica, since
            few see the log of where it was built.
        spans: where spans go, for what this machine's environment does not say.
        place, load, find: what Ray says of this process, what makes the model and finds the board; given by tests only.

    Raises:
        SettingsError: settings that cannot be used.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        *,
        keyed: bool = False,
        ignored: Sequence[str] = (),
        spans: SpanVariables = NO_SPANS,
        place: Place | None = None,
        load: Load | None = None,
        find: Finds | None = None,
    ) -> None:
        place = place or Place.here()
        settings = share_of(load_settings(given), place)
        if keyed and settings.api_keys is None:  # it would be open to everybody without a word
            raise SettingsError(
                f"{PREFIX}API_KEYS was set where the application was built, and is not where a replica runs: keys are never sent "
                f"along; set it for all nodes (runtime_env), or {PREFIX}API_KEYS_FILE"
            )
        configure(settings.log_format, settings.log_level, worker=place.rank)
        if place.rank == 0:
            _warn(settings, {*ignored, *unknown_variables()})
        for name in spans.take():  # before the library of spans is imported, which reads them
            logger.warning("%s was set where the application was built, and is not here: headers are never sent along", name)
        self._metrics = metrics = ReportedMetrics()
        self._app = create_app(settings, load=load or load_model, metrics=metrics, swaps=ReplicaSwaps, cpus=place.cpus)
        self._app.add_middleware(Reached)
        services: Services = self._app.state.services
        assert isinstance(services.swaps, ReplicaSwaps)
        self._swaps = services.swaps
        self._classifier = services.classifier
        find = find or board_of(place.application)
        self._reporter = metrics.reporter = Reporter(place.replica, find, metrics, lambda: self._swaps.serves)
        self._asked: object = self  # no `user_config` yet
        _beside(self._app, self._reporter)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app

    async def reconfigure(self, user_config: dict[str, Any] | None, rank: object) -> None:
        """Serve what `user_config` names. Ray calls it before the first request, since it asks for `rank`, and at each change.

        An error here ends a replica. So only the first call raises one: later the old model serves on, and the log says why.
        """
        if user_config == self._asked:  # its rank has changed, which is nothing to us
            return
        first, self._asked = self._asked is self, user_config
        try:
            await self._swaps.serve(self._wanted(user_config).checkpoint)
        except Exception as error:  # noqa: BLE001 - whatever it is: the model that serves is in order
            logger.error("user_config %r was not taken up: %s", user_config, error)
            if first:
                await self._serve_as_the_others(error)

    def _wanted(self, user_config: dict[str, Any] | None) -> UserConfig:
        try:
            return UserConfig.model_validate(user_config or {})
        except ValidationError as error:
            self._metrics.loads.labels("refused").inc()  # as a checkpoint that cannot be loaded: somebody should look
            fault = error.errors()[0]
            name = ".".join(map(str, fault["loc"])) or "user_config"
            raise ValueError(f"{name}: {fault['msg']}; it may say {', '.join(UserConfig.model_fields)}") from None

    async def _serve_as_the_others(self, error: Exception) -> None:
        """A replica that starts while the others refused what it is to load must not serve something else than they do."""
        for reference in await self._reporter.serving():
            try:
                await self._swaps.serve(reference)
            except (AppError, ModelError):
                continue
            logger.warning("serving %s, as the other replicas do", reference or "what the settings name")
            return
        raise RuntimeError(str(error)) from None  # nothing of ours, since whoever reads it may not have our classes

    async def check_health(self) -> None:
        """Raises where no model serves. The watchdog loads one anew within seconds; Ray replaces what fails three checks."""
        reasons = self._classifier.reasons
        if reasons:
            raise RuntimeError("; ".join(reasons))


class Reached:
    """Where a proxy cannot be asked for more of a body, its client has left: Ray cancels that question together with the request,
    or the proxy is gone. That is nobody's fault, and there is nobody to answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def heard() -> Message:
            try:
                return await receive()
            except Exception as error:  # noqa: BLE001 - Ray has many names for it
                logger.debug("the rest of a request cannot be had: %s", error)
                return {"type": "http.disconnect"}

        await self._app(scope, heard if scope["type"] == "http" else receive, send)


def _warn(settings: Settings, ignored: set[str]) -> None:
    """What `sknet serve` says at its start."""
    for name in sorted(ignored):
        logger.warning("%s is no setting and is ignored; see sknet serve --help", name)
    for warning in warnings_of(settings, Keys.of(settings), behind="the proxies of Ray Serve"):
        logger.warning("%s", warning)


def _beside(app: FastAPI, reporter: Reporter) -> None:
    """Let the reporter run as long as the application does."""
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with inner(app) as state:
            reporting = asyncio.create_task(reporter.run(), name="report")
            try:
                yield state
            finally:
                reporting.cancel()
                await asyncio.gather(reporting, return_exceptions=True)

    app.router.lifespan_context = lifespan
