"""The variables `OTEL_*`: what is wrong is refused by name, and what the library takes is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.common.http import Compression
from opentelemetry.sdk.trace import sampling

from app import otlp_variables
from app.otlp_variables import sends

SAMPLERS = (
    "always_on or always_off or traceidratio or parentbased_always_on or parentbased_always_off or parentbased_traceidratio"
)
WHOLE = "a whole number from 1 to 999999999"
SECONDS = "a number of seconds, more than 0"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "given", "allowed"),
    [
        ("TRACES_EXPORTER", "zipkin", "otlp or none"),
        ("TRACES_SAMPLER", "sometimes", SAMPLERS),
        ("TRACES_SAMPLER_ARG", "half", "a number from 0 to 1"),
        ("TRACES_SAMPLER_ARG", "1.5", "a number from 0 to 1"),
        ("TRACES_SAMPLER_ARG", "nan", "a number from 0 to 1"),
        ("EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("EXPORTER_OTLP_COMPRESSION", "zip", "none or gzip or deflate"),
        ("EXPORTER_OTLP_TRACES_COMPRESSION", "br", "none or gzip or deflate"),
        ("EXPORTER_OTLP_TIMEOUT", "10s", SECONDS),
        ("EXPORTER_OTLP_TRACES_TIMEOUT", "0", SECONDS),
        ("EXPORTER_OTLP_TRACES_TIMEOUT", "nan", SECONDS),
        ("EXPORTER_OTLP_TRACES_TIMEOUT", "inf", SECONDS),
        ("EXPORTER_OTLP_CERTIFICATE", "/no/such.pem", "a file that is there"),
        ("EXPORTER_OTLP_TRACES_CERTIFICATE", "/no/such.pem", "a file that is there"),
        ("EXPORTER_OTLP_CLIENT_CERTIFICATE", "/no/such.pem", "a file that is there"),
        ("EXPORTER_OTLP_TRACES_CLIENT_KEY", "/no/such.pem", "a file that is there"),
        ("TRACES_SAMPLER", " always_on", SAMPLERS),
        ("BSP_MAX_QUEUE_SIZE", "-1", WHOLE),
        ("BSP_MAX_QUEUE_SIZE", "1" * 5000, WHOLE),
        ("BSP_MAX_EXPORT_BATCH_SIZE", "many", WHOLE),
        ("BSP_SCHEDULE_DELAY", "0", WHOLE),
        ("BSP_EXPORT_TIMEOUT", "1.5", WHOLE),
        ("BSP_MAX_QUEUE_SIZE", "100", "512 or more, which is OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, given: str, allowed: str) -> None:
    monkeypatch.setenv(f"OTEL_{name}", given)
    with pytest.raises(ValueError, match="OTEL_") as found:
        sends()
    assert str(found.value) == f"OTEL_{name} is {given[:100]!r}: here it may be {allowed}"


def test_a_batch_that_no_queue_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2049")
    with pytest.raises(ValueError, match="OTEL_BSP_MAX_QUEUE_SIZE is '2048': here it may be 2049 or more"):
        sends()
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "2049")
    assert sends()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("TRACES_SAMPLER", "ALWAYS_OFF"), ("TRACES_SAMPLER", ""), ("TRACES_SAMPLER_ARG", "1e-3"), ("TRACES_SAMPLER_ARG", "1"),
        ("TRACES_EXPORTER", "OTLP"), ("EXPORTER_OTLP_COMPRESSION", " GZip "), ("EXPORTER_OTLP_TRACES_TIMEOUT", "0.5"),
        ("EXPORTER_OTLP_CERTIFICATE", __file__), ("EXPORTER_OTLP_CERTIFICATE", str(Path(__file__).parent)),
        ("BSP_MAX_QUEUE_SIZE", " 512 "), ("BSP_SCHEDULE_DELAY", "1"),
    ],
)  # fmt: skip
def test_what_the_library_takes_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, given: str) -> None:
    monkeypatch.setenv(f"OTEL_{name}", given)
    assert sends()


def test_the_name_for_traces_goes_before_the_one_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "zip")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip")
    assert sends()


def test_where_nothing_is_sent_it_does_not_matter_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "zip")
    assert not sends()


def test_the_choices_are_the_librarys() -> None:
    assert set(otlp_variables._SAMPLERS) == set(sampling._KNOWN_SAMPLERS)
    assert {each.value for each in Compression} == {"none", "gzip", "deflate"}
