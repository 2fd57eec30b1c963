"""The way to the collector: what the variables say, what is lost and how seldom that is told, and an end in time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased

from app import collector as module
from app.collector import Collector, Outlet, Seldom, connect, resource


class Deaf(SpanExporter):
    """Takes nothing; with a gate it does not even say so before that opens."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate
        self.ends = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.gate is not None:
            self.gate.wait(10)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.ends += 1


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variables of whoever runs the tests, and a collector that is not there."""
    for name in ("OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("OtelBatch")] == []


def spans(count: int) -> list[ReadableSpan]:
    return [ReadableSpan(str(i)) for i in range(count)]


def test_the_service_has_a_name_that_a_variable_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    told = resource().attributes
    assert (told["service.name"], told["service.version"]) == ("sknet", version("sknet-serve"))
    assert told["service.instance.id"]
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=first,deployment.environment=prod")
    assert resource().attributes["service.name"] == "first"
    assert resource().attributes["deployment.environment"] == "prod"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "second")
    assert resource().attributes["service.name"] == "second"


def test_the_library_reads_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9/base")
    made = connect()
    assert made is not None
    assert isinstance(made.provider.sampler, ParentBased)
    assert "0.25" in made.provider.sampler.get_description()  # type: ignore[no-untyped-call]
    assert isinstance(made.processor, BatchSpanProcessor)
    assert made.processor.span_exporter._exporter._endpoint == "http://127.0.0.1:9/base/v1/traces"
    made.close()


def test_it_can_be_switched_off_by_the_librarys_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    made = connect()
    assert made is not None
    assert not isinstance(made.processor, BatchSpanProcessor)
    made.close()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "never")  # nothing is looked at
    assert connect() is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER is 'zipkin': here it may be otlp or none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc': here it may be http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is 'http/json'"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "OTEL_BSP_MAX_QUEUE_SIZE is '0': here it may be a whole number from 1 to"),
    ],
)
def test_a_variable_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=says):
        connect()


def test_one_line_of_many_is_let_through_and_says_so() -> None:
    now = 0.0
    seldom = Seldom(60, clock=lambda: now)

    def pass_through() -> str | None:
        record = logging.LogRecord("a", logging.ERROR, "", 0, "lost %d", (3,), None)
        return record.getMessage() if seldom.filter(record) else None

    assert [pass_through() for _ in range(4)] == ["lost 3", None, None, None]
    now = 61.0
    assert [pass_through() for _ in range(2)] == ["lost 3 (3 lines were left out before)", None]


def test_a_collector_that_is_not_there_costs_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    outlet = Outlet(Deaf())
    for _ in range(20):
        assert outlet.export(spans(7)) is SpanExportResult.FAILURE
    assert caplog.messages == ["7 spans were lost: the collector did not take them"]
    outlet.shutdown()
    assert caplog.messages[1:] == ["133 spans were lost: the collector did not take them"]


def test_an_outlet_is_shut_down_once_and_takes_nothing_then() -> None:
    deaf = Deaf()
    outlet = Outlet(deaf)
    outlet.shutdown()
    outlet.shutdown()
    assert deaf.ends == 1
    assert outlet.export(spans(1)) is SpanExportResult.FAILURE


def test_the_end_waits_for_a_slow_collector_but_not_for_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.2)
    gate = threading.Event()
    provider = TracerProvider(shutdown_on_exit=False)
    processor = BatchSpanProcessor(Outlet(Deaf(gate)))
    provider.add_span_processor(processor)
    provider.get_tracer("a").start_span("b").end()
    started = time.monotonic()
    Collector(provider, processor).close()
    assert 0.2 <= time.monotonic() - started < 5
    assert "the collector did not take the last spans within 0.2 s" in caplog.messages
    gate.set()
    for thread in threading.enumerate():
        if thread.name.startswith(("OtelBatch", "tracing")):
            thread.join(5)


def test_filters_of_the_librarys_loggers_go_with_it() -> None:
    before = [list(logging.getLogger(name).filters) for name in module._TALKATIVE]
    made = connect()
    assert made is not None
    assert all(logging.getLogger(name).filters != old for name, old in zip(module._TALKATIVE, before, strict=True))
    made.close()
    assert [list(logging.getLogger(name).filters) for name in module._TALKATIVE] == before
