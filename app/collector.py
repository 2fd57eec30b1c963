"""The way to a collector of spans, by OpenTelemetry's library as its variables `OTEL_*` say. Imported where tracing is on.

A collector that is slow or not there costs spans and a line a minute, never a request: spans wait in a bounded queue, a thread
of the library sends them, and the end waits for it only so long. Nothing is set for the whole process. Knows no request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from requests import Session

from app.otlp_session import bounded_session
from app.otlp_variables import disabled, sends
from app.settings import of_opentelemetry
from app.threads import yield_to_the_loop

logger = logging.getLogger("sknet.tracing")

NAME = "sknet"  # of the service, where `OTEL_SERVICE_NAME` gives none
FLUSH_S = 3.0  # waited for at the end, where the library itself would wait for 30 s and more
QUIET_S = 60.0  # between two lines that say the same
# Of the library: those that tell of every batch that is not taken, and of every header that a stranger got wrong.
_TALKATIVE = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.trace.span",
    "opentelemetry.trace.propagation.tracecontext",
)


class Seldom(logging.Filter):
    """Lets a line through, then none for a while; the next one tells how many were left out."""

    def __init__(self, every_s: float = QUIET_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._next = float("-inf")
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        if now < self._next:
            self._left_out += 1
            return False
        if self._left_out:
            record.msg, record.args = f"{record.getMessage()} ({self._left_out} lines were left out before)", None
        self._next, self._left_out = now + self._every_s, 0
        return True


class Outlet(SpanExporter):
    """An exporter that says how many spans were lost, once in a while, and that may be shut down at any time and twice."""

    def __init__(self, exporter: SpanExporter, quiet_s: float = QUIET_S) -> None:
        self._exporter = exporter
        self._quiet_s = quiet_s
        self._told = float("-inf")
        self._lost = 0
        self._closed = False
        self._urgent = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; called by the library's thread."""
        if self._urgent and threading.current_thread() is not threading.main_thread():
            self._urgent = False  # its first batch: from now on the thread lets the event loop go first
            yield_to_the_loop()
        taken = not self._closed and self._exporter.export(spans) is SpanExportResult.SUCCESS
        if not taken:
            self._lost += len(spans)
            if time.monotonic() >= self._told + self._quiet_s:
                self._told = time.monotonic()
                self._tell()
        return SpanExportResult.SUCCESS if taken else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Send nothing any more; a try that waits for the next one ends at once."""
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()
            self._tell()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """As the exporter's."""
        return self._exporter.force_flush(timeout_millis)

    def _tell(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            logger.warning("%d spans were lost: the collector did not take them", lost)


@dataclass(frozen=True)
class Collector:
    """Where spans go: `provider` makes and `processor` queues them."""

    provider: TracerProvider
    processor: SpanProcessor
    filters: tuple[Seldom, ...] = ()

    def close(self) -> None:
        """Send what waits, but not for longer than a moment."""
        ending = threading.Thread(target=self.processor.shutdown, name="tracing", daemon=True)
        ending.start()
        ending.join(FLUSH_S)
        if ending.is_alive():
            logger.warning("the collector did not take the last spans within %g s", FLUSH_S)
            if isinstance(self.processor, BatchSpanProcessor):
                self.processor.span_exporter.shutdown()
        for name, each in zip(_TALKATIVE, self.filters, strict=False):
            logging.getLogger(name).removeFilter(each)


def connect() -> Collector | None:
    """A way to the collector that the variables name; None where `OTEL_SDK_DISABLED` is true.

    Raises:
        ValueError: a variable cannot be used.
    """
    if disabled():
        return None
    sending = sends()  # asked first: the library has its own words for some of what is wrong, and goes on
    provider = TracerProvider(resource=resource(), shutdown_on_exit=False)
    processor: SpanProcessor = SpanProcessor()
    if sending:
        processor = BatchSpanProcessor(Outlet(OTLPSpanExporter(session=_session())))
        provider.add_span_processor(processor)
    filters = tuple(Seldom() for _ in _TALKATIVE)
    for name, each in zip(_TALKATIVE, filters, strict=True):
        logging.getLogger(name).addFilter(each)
    return Collector(provider, processor, filters)


def resource() -> Resource:
    """What the spans are of: the name and version of this service, where the variables name no other."""
    told = OTELResourceDetector().detect().attributes
    ours = {SERVICE_NAME: NAME, SERVICE_VERSION: version("sknet-serve")}
    return Resource.create({name: value for name, value in ours.items() if not told.get(name)})


def _session() -> Session | None:
    """None where the variables name one of a plugin, which has what lets it in."""
    plugin = any(of_opentelemetry(f"PYTHON_EXPORTER_OTLP_HTTP_{each}CREDENTIAL_PROVIDER") for each in ("", "TRACES_"))
    return None if plugin else bounded_session()
