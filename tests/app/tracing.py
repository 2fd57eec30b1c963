"""Tracing into memory, for services within a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler

from app.collector import Collector
from app.spans import Tracing

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-01", f"00-{TRACE_ID}-{PARENT_ID}-00"


@dataclass
class Memory:
    """Where the spans go. `make` is for `create_app`."""

    sampler: Sampler = DEFAULT_ON
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    closed: bool = False

    def make(self, quiet: frozenset[str] = frozenset()) -> Tracing:
        provider = TracerProvider(sampler=self.sampler, shutdown_on_exit=False)
        processor = SimpleSpanProcessor(self.exporter)
        provider.add_span_processor(processor)
        return Tracing(Collector(provider, processor), quiet)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """All that were sent so far, in the order of their start."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    @property
    def server(self) -> ReadableSpan:
        """The only span of a request."""
        (span,) = [span for span in self.spans if span.kind.name == "SERVER"]
        return span

    @property
    def parts(self) -> list[ReadableSpan]:
        """Those below it, by the order of their start."""
        return [span for span in self.spans if span.kind.name != "SERVER"]


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def trace_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return format(span.context.trace_id, "032x")


def span_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return format(span.context.span_id, "016x")


def parent_id(span: ReadableSpan) -> str | None:
    return None if span.parent is None else format(span.parent.span_id, "016x")
