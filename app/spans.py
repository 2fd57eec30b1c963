"""The spans of one request: one of the server's, and below it one for each phase of each image. Imported where tracing is on.

Names and attributes are those of OpenTelemetry's semantic conventions for HTTP, and `sknet.*` for what only this service has.
Phases become spans when the answer is out, from the timings that travelled back with the result: nothing waits for them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.collector import NAME, Collector

if TYPE_CHECKING:
    from starlette.types import Scope

    from app.context import RequestContext, Timings

MOST_IMAGES = 32  # of one request that get spans of their own
MOST_BYTES = 512  # of each header that is read (W3C Trace Context, section 3.3.1.5)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_NS = 1_000_000_000
_HEADERS = TraceContextTextMapPropagator()
_PLAIN = Context()

Value = str | int | bool
Attributes = dict[str, Value]


class _Part(NamedTuple):
    """Something within a request: from and to on the monotonic clock."""

    name: str
    start: float
    end: float
    attributes: Mapping[str, Value]
    kind: SpanKind = SpanKind.INTERNAL


class Tracing:
    """Begins the span of each request, and sends what is below it. One for each application.

    `quiet` are paths that are asked every few seconds: traced only where whoever asks traces.
    """

    def __init__(self, collector: Collector, quiet: frozenset[str] = frozenset()) -> None:
        self._collector = collector
        self._quiet = quiet
        self._tracer = collector.provider.get_tracer(NAME, version("sknet-serve"))
        self._instrument = InstrumentationScope(NAME, version("sknet-serve"))

    def begin(self, scope: Scope, started: float) -> Trace | None:
        """The span of a request that came at `started` (monotonic); below that of its `traceparent` if it has a valid one.

        None where the path is quiet, and the sender traces nothing.
        """
        parent = _parent(scope)
        path: str = scope["path"]
        if parent is _PLAIN and path in self._quiet:
            return None
        skew = time.time_ns() - round(time.monotonic() * _NS)  # once a request: its spans fit together whatever the clock does
        method = scope["method"]
        known = method if method in _METHODS else "_OTHER"
        attributes: Attributes = {
            "http.request.method": known,
            "url.path": path[:500],
            "url.scheme": scope.get("scheme", "http"),
        }
        if known != method:
            attributes["http.request.method_original"] = method[:50]
        span = self._tracer.start_span(
            "HTTP" if known == "_OTHER" else known,
            context=parent,
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=skew + round(started * _NS),
        )
        return Trace(self, span, started, skew)

    def send(self, part: _Part, parent: SpanContext, skew: int) -> None:
        """Send a span that is over. Past the library's tracer, which asks the sampler and locks: ten times the cost of this,
        and a part is sampled where its request is."""
        provider = self._collector.provider
        own = SpanContext(
            parent.trace_id, provider.id_generator.generate_span_id(), False, parent.trace_flags, parent.trace_state
        )
        span = ReadableSpan(
            part.name,
            own,
            parent,
            provider.resource,
            part.attributes,
            kind=part.kind,
            instrumentation_scope=self._instrument,
            start_time=skew + round(part.start * _NS),
            end_time=skew + round(part.end * _NS),
            status=Status(StatusCode.ERROR if "error.type" in part.attributes else StatusCode.UNSET),
        )
        self._collector.processor.on_end(span)

    def close(self) -> None:
        """As `Collector.close`."""
        self._collector.close()


class Trace:
    """The span of one request, and what happens within it."""

    def __init__(self, tracing: Tracing, span: Span, started: float, skew: int) -> None:
        self._tracing = tracing
        self._span = span
        self._started = started
        self._skew = skew
        self._parts: list[_Part] = []
        known = span.get_span_context()
        self.trace_id = format(known.trace_id, "032x")
        self.span_id = format(known.span_id, "016x")
        # What the sender is told, so that it finds the trace even where it began here: `traceresponse` of the W3C's drafts.
        self.response = f"00-{self.trace_id}-{self.span_id}-{known.trace_flags:02x}".encode()

    @contextmanager
    def outgoing(self, scheme: str, host: str, port: int) -> Iterator[None]:
        """Around a request that this one makes. It carries no `traceparent`: what is asked is a stranger's server.

        Neither path nor query is kept, since addresses of images may hold what lets their bearer in.
        """
        start = time.monotonic()
        attributes: Attributes = {
            "http.request.method": "GET", "url.scheme": scheme, "server.address": host, "server.port": port,
        }  # fmt: skip
        try:
            yield
        except BaseException as error:
            attributes["error.type"] = type(error).__name__
            raise
        finally:
            self._parts.append(_Part("GET", start, time.monotonic(), attributes, SpanKind.CLIENT))

    def end(
        self,
        scope: Scope,
        context: RequestContext,
        method: str,
        route: str | None,
        status: int | None,
        seconds: float,
        *,
        failed: bool,
    ) -> None:
        """The answer is out, or, where `status` is None, the client left; that came `seconds` after the request.

        `failed`: by a fault of the service; what a client did wrong is none (conventions for HTTP spans).
        """
        span = self._span
        if not span.is_recording():  # not sampled: its ids are all there is
            return
        own = span.get_span_context()
        for timings in context.timings[:MOST_IMAGES]:
            self._parts += _phases(timings, several=len(context.timings) > 1)
        for part in self._parts:
            self._tracing.send(part, own, self._skew)
        if route is not None and method in _METHODS:
            span.update_name(f"{method} {route}")
        if failed:
            span.set_status(StatusCode.ERROR)
        span.set_attributes({**_of_client(scope), **_of_answer(context, route, status, failed=failed)})
        span.end(self._skew + round((self._started + seconds) * _NS))


def _parent(scope: Scope) -> Context:
    """The context that the request came with; none where its `traceparent` is not valid, or there are several."""
    given = [value for name, value in scope["headers"] if name == b"traceparent"]
    if len(given) != 1 or len(given[0]) > MOST_BYTES:
        return _PLAIN
    carrier = {"traceparent": given[0].decode("latin-1")}
    state = b",".join(value for name, value in scope["headers"] if name == b"tracestate")
    if 0 < len(state) <= MOST_BYTES:
        carrier["tracestate"] = state.decode("latin-1")
    return _HEADERS.extract(carrier, _PLAIN)


def _of_client(scope: Scope) -> Attributes:
    """Who asked, and how."""
    found: Attributes = {"network.protocol.version": scope.get("http_version", "1.1")}
    if scope.get("client"):
        found["client.address"] = scope["client"][0]
    for name, value in scope["headers"]:
        if name == b"user-agent":
            found["user_agent.original"] = value[:200].decode("latin-1")
        elif name == b"host":
            address, _, port = value[:200].decode("latin-1").rpartition(":")
            if address and port.isascii() and port.isdigit():  # of superscripts too the latter says yes
                found["server.address"], found["server.port"] = address, int(port[:5])
            else:
                found["server.address"] = value[:200].decode("latin-1")
    return found


def _of_answer(context: RequestContext, route: str | None, status: int | None, *, failed: bool) -> Attributes:
    """What was asked of which route, and what became of it."""
    found: Attributes = {"sknet.request_id": context.id}
    given = {"http.route": route, "sknet.key": context.key, "sknet.problem": context.problem, "http.response.status_code": status}
    found |= {name: value for name, value in given.items() if value is not None}
    if context.timings:
        found["sknet.images"] = len(context.timings)
    if status is None:
        found["sknet.client_left"] = True
    if failed:
        found["error.type"] = context.problem or str(status)
    return found


def _phases(timings: Timings, *, several: bool) -> Iterator[_Part]:
    """The parts of one image; of several the spans say which one it was."""
    which: Attributes = {"sknet.image": timings.image} if several else {}
    for lap in timings.laps:
        begun = lap.since + lap.queue_s
        if lap.queue_s:
            yield _Part("queue", lap.since, begun, {**which, "sknet.queue_for": lap.phase})
        attributes = which
        if lap.phase == "inference" and timings.model is not None:
            attributes = {
                **which,
                "sknet.batch_size": lap.batch_size,
                "sknet.model.variant": timings.model.variant,
                "sknet.model.digest": timings.model.digest,
            }
        yield _Part(lap.phase, begun, begun + lap.run_s, attributes)
