"""The composition root: every part is made here, in order, and torn down in reverse. Nothing else makes one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI

from app import openapi, problems
from app.access import Gate, gate_of, needed
from app.bodies import BodyLimits
from app.classifier import Classifier, Model
from app.cors import Headed, Preflights, with_cors
from app.dialects import any_plain
from app.grpc_port import GRPC_PROBES, check_grpc
from app.keys import Keys
from app.lanes import Lanes
from app.metrics import Metrics
from app.middleware import Departures, RequestLog
from app.rates import Rates
from app.recovery import Recovery
from app.room import Room
from app.routes import admin, classify, explain, models, pages, probes
from app.routes.dialects import spoken
from app.services import Services
from app.settings import Settings, SettingsError, load_settings
from app.sources import Fetch
from app.swaps import Load, Swaps
from app.tracing import new_tracing
from model.device import cpu_limit
from model.errors import ModelError

if TYPE_CHECKING:
    from app.grpc_calls import Log
    from app.grpc_server import GrpcServer
    from app.spans import Tracing
    from model.manager import LoadRequest

logger = logging.getLogger("sknet.service")

OnFailure = Callable[[Exception], None]
OnReady = Callable[[], None]
MakeFetch = Callable[[Settings, Room], Fetch]
MakeTracing = Callable[[frozenset[str]], "Tracing | None"]


def create_app(
    settings: Settings | None = None,
    *,
    load: Load | None = None,
    on_failure: OnFailure | None = None,
    on_ready: OnReady | None = None,
    metrics: Metrics | None = None,
    swaps: Callable[[Lanes, Settings, Load], Swaps] = Swaps,
    make_fetch: MakeFetch | None = None,
    make_tracing: MakeTracing | None = None,
    cpus: int | None = None,
) -> FastAPI:
    """Make the application.

    Args:
        settings: out of the environment where not given.
        load: makes the model; replaced by tests.
        on_failure: told when the model cannot be loaded, or cannot serve any more. Without it the start itself fails.
        on_ready: told when a model serves.
        metrics: where not given, of this application alone.
        swaps: how the model changes; where not given, in this process alone.
        make_fetch: makes what fetches images where the settings allow urls; replaced by tests.
        make_tracing: makes what sends spans where the settings want it, given the paths of probes; replaced by tests.
        cpus: processors that this application may use for its decoding; where not given, a worker's part of all there are.

    Raises:
        SettingsError: settings, the keys that they name, or the variables of tracing cannot be used.
    """
    settings = settings or load_settings()
    check_grpc(settings)
    keys = Keys.of(settings)
    rates = Rates(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
    load = load or load_model
    metrics = metrics or Metrics()
    metrics.observe_limits(queue=settings.max_queue, deadline_s=settings.deadline_s)
    classifier = Classifier(settings, metrics, decode_threads=max(1, cpus or cpu_limit()[0] // settings.workers))
    swap = swaps(classifier.lanes, settings, load)
    recovery = Recovery(classifier.lanes, metrics, swap.again, on_failure)
    room = Room(settings.max_buffered_bytes, classifier.retry_after)
    dialects = spoken(settings)
    tags = {tag["name"]: dict(tag) for dialect in dialects for tag in dialect.tags}  # by name: one may be at two places
    fetch = (make_fetch or new_fetch)(settings, room) if settings.allow_urls else None
    asked: frozenset[str] = frozenset().union(*(dialect.probes for dialect in dialects))
    quiet = frozenset({"/livez", "/readyz", "/healthz", "/metrics"}) | asked | GRPC_PROBES
    tracing = (make_tracing or new_tracing)(quiet) if settings.tracing else None
    services = Services(settings, metrics, classifier, swap, room, fetch)
    gate = gate_of(keys, rates, open_admin=settings.open_admin, probes=asked)
    logged = partial(
        RequestLog,
        metrics=metrics,
        deadline_s=settings.deadline_s,
        draining=lambda: classifier.lanes.draining,
        tracing=tracing,
    )
    grpc = new_grpc(services, gate, partial(logged, timed=frozenset())) if settings.grpc_port else None

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_start(services, grpc, on_failure, on_ready), name="load")
        if keys is not None:
            keys.start()
        try:
            if on_failure is None:
                await loading  # nobody to tell: the server must see the failure
            yield
        finally:
            if grpc is not None:
                await grpc.stop()
            await recovery.close()
            await swap.close()
            await classifier.close()
            if not loading.done():
                loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            if keys is not None:
                keys.stop()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)  # last: what ends above has spans as well

    app = FastAPI(
        title="SKNet",
        version=version("sknet-serve"),
        summary="Image classification with Selective Kernel Networks",
        description="Send an image, get its best classes. `/models` says what the model is and how it runs; "
        "every error is an RFC 9457 problem document, and `/problems` lists them. After these routes come the protocols of "
        "others, with errors as each of them has it.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a path with a slash too many is not there, as any other that is not
        generate_unique_id_function=lambda route: route.name,  # operation ids that make readable client methods
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours are elsewhere; each is asked for at every request
        openapi_tags=[
            {"name": "classify", "description": "Images in, classes out."},
            {"name": "models", "description": "Which model serves, and why it runs as it does; loading another."},
            {"name": "service", "description": "Probes and metrics."},
            *tags.values(),
        ],
    )
    app.state.services = services
    app.state.grpc = grpc
    for router in (classify.router, explain.router, models.router, admin.router, probes.router, pages.router):
        app.include_router(router)
    for dialect in dialects:
        app.include_router(dialect.router)
    pages.mount_static(app)
    problems.install(app, any_plain(dialects))
    timed = frozenset({"/classify", "/classify/batch", "/explain"}).union(*(dialect.inputs for dialect in dialects))
    openapi.install(
        app,
        partial(needed, probes=asked),
        most_images=min(settings.max_images, settings.max_queue),
        timed=timed.union(*(dialect.templates for dialect in dialects)),
        schemas=[schema for dialect in dialects for schema in dialect.schemas],
        plain=any_plain(dialects),
    )
    admin_bytes = min(admin.MAX_BODY_BYTES, settings.max_body_bytes)
    by_path = {
        "/classify/batch": settings.max_batch_body_bytes,
        **{path: most for dialect in dialects for path, most in dialect.inputs.items()},
        **{path: admin_bytes for dialect in dialects for path in dialect.admin},
        **dict.fromkeys(admin.paths(settings.model_name), admin_bytes),
    }
    # The last one added is the outermost. Headed -> RequestLog -> Preflights -> BodyLimits, which asks the gate -> Departures.
    app.add_middleware(Departures)
    app.add_middleware(
        BodyLimits,
        max_body_bytes=settings.max_body_bytes,
        room=room,
        by_path=by_path,
        refusals=dict.fromkeys(timed, classifier.refusal),
        uncompressed=timed.union(by_path).difference(*(dialect.unpacked for dialect in dialects)),
        gate=gate,
    )
    if settings.cors_origins:
        app.add_middleware(with_cors(Preflights, settings.cors_origins))
    app.add_middleware(logged, timed=timed)
    if settings.cors_origins:
        app.add_middleware(with_cors(Headed, settings.cors_origins))
    return app


def load_model(settings: Settings) -> Model:
    """Load the model that the settings name."""
    from model.manager import load  # brings numpy and the engine, which a test with a fake does without

    return load(load_request(settings))


def new_fetch(settings: Settings, room: Room) -> Fetch:
    """What fetches images by url, as the settings allow it."""
    from app.dialler import Dialler  # with TLS and a list of authorities, which a service without urls does without
    from app.fetch import Fetcher, trusted
    from app.resolver import Resolver

    return Fetcher(settings, room, Dialler(Resolver(), trusted()))


def new_grpc(services: Services, gate: Gate, log: Log) -> GrpcServer:
    """What takes calls over gRPC."""
    from app.grpc_calls import Calls  # with gRPC itself, an extra
    from app.grpc_health import Health
    from app.grpc_server import GrpcServer
    from app.oip_grpc import SERVICE, Inference

    health = Health(services.classifier, (SERVICE, services.settings.model_name))
    return GrpcServer(services.settings, Calls(services, gate, log), [*Inference(services).methods(), *health.methods()])


def load_request(settings: Settings) -> LoadRequest:
    """What the settings say of the model, in the words of `model`."""
    from model.manager import LoadRequest

    return LoadRequest(
        checkpoint=settings.checkpoint,
        variant=settings.variant,
        labels_file=settings.labels_file,
        sha256=settings.checkpoint_sha256,
        cache_dir=settings.cache_dir,
        device=settings.device,
        engine=settings.engine,
        precision=settings.precision,
        threads=settings.threads,
        streams=settings.streams,
        batch_size=settings.batch_size,
        preprocess=settings.preprocess,
        max_pixels=settings.max_pixels,
        max_side=settings.max_side,
        max_frames=settings.max_frames,
        max_metadata_bytes=settings.max_metadata_bytes,
        decode_s=settings.decode_s,
        decode_memory_bytes=settings.decode_memory_bytes,
    )


async def _start(services: Services, grpc: GrpcServer | None, on_failure: OnFailure | None, on_ready: OnReady | None) -> None:
    classifier = services.classifier
    try:
        if grpc is not None and services.settings.workers == 1:
            await grpc.start()
        await services.swaps.start()
        if grpc is not None:  # one of several is not called before it serves: the others do meanwhile
            await grpc.start()
    except Exception as error:
        if on_failure is None:
            raise
        if not isinstance(error, ModelError | SettingsError):
            logger.exception("the model could not be loaded")
        on_failure(error)
        return
    if classifier.state == "ready":
        info = classifier.model.info
        logger.info(
            "ready: %s from %s (%s, %s, %s) in %.1f s",
            info.variant, info.checkpoint, info.engine.value, info.device.value, info.dtype.value, info.load_seconds,
        )  # fmt: skip
    if classifier.state in ("ready", "unloaded") and on_ready is not None:
        on_ready()
