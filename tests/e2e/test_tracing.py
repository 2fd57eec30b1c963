"""Tracing for real: a service process, workers of it, and a collector on loopback; and one that is not there."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

import pytest

from tests.app.tracing import PARENT_ID, SAMPLED, TRACE_ID, UNSAMPLED
from tests.e2e.bad_inputs import jpeg
from tests.e2e.server import START_S, Server, serve
from tests.otlp import collecting

pytestmark = pytest.mark.e2e


def ask(server: Server, **headers: str) -> dict[str, str]:
    """Classify once over a new connection; the headers of the answer."""
    with server.client() as client:
        response = client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg", **headers})
    assert response.status_code == 200
    return dict(response.headers)


def test_a_collector_gets_the_spans_whose_ids_the_log_names() -> None:
    with collecting() as otlp:
        variables: dict[str, Any] = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
        }
        with serve("--tracing", "true", "--workers", "2", **variables) as server:
            end = time.monotonic() + START_S
            while not any("worker 1 is ready" in line for line in server.lines) and time.monotonic() < end:
                time.sleep(0.05)
            for number in range(8):  # each worker gets some
                told = ask(server, **{"X-Request-ID": f"abc-{number}", "traceparent": SAMPLED})
                assert told["traceresponse"].startswith(f"00-{TRACE_ID}-")
            ask(server, traceparent=UNSAMPLED)
            assert server.stop() == 0  # and what waits is sent
        records = [r for r in server.records() if str(r.get("request_id", "")).startswith("abc-")]
    requests = [s for s in otlp.spans if s.kind == 2]
    assert {s.name for s in otlp.spans} == {"POST /classify", "queue", "prepare", "inference"}
    assert len(requests) == len(records) == 8
    said = {r["request_id"]: (r["trace_id"], r["span_id"]) for r in records}
    assert said == {s.attributes["sknet.request_id"]: (s.trace_id, s.span_id) for s in requests}
    assert {(s.trace_id, s.parent_id) for s in requests} == {(TRACE_ID, PARENT_ID)}
    for request in requests:
        below = [s for s in otlp.spans if s.parent_id == request.span_id]
        assert sorted(s.name for s in below) == ["inference", "prepare", "queue", "queue"]
        assert all(request.start - 2_000 <= s.start <= s.end <= request.end + 2_000 for s in below)
    assert abs(requests[0].start / 1e9 - time.time()) < 300
    (inference, *_) = [s for s in otlp.spans if s.name == "inference"]
    assert str(inference.attributes["sknet.model.digest"]).startswith("sha256:")
    for resource in (s.resource for s in otlp.spans):
        assert resource["service.name"] == "sknet"
        assert resource["service.version"] == version("sknet-serve")
        assert resource["deployment.environment"] == "test"
    workers = {r["worker"] for r in records}
    assert len({s.resource["service.instance.id"] for s in requests}) == len(workers) == 2
    assert all(h["authorization"] == "Bearer abc" for h in otlp.headers)


def test_without_a_collector_requests_are_answered_and_the_end_is_in_time() -> None:
    # Port 1 of loopback: nobody is there.
    variables: dict[str, Any] = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with serve("--tracing", "true", **variables) as server:
        for _ in range(30):
            ask(server)
            time.sleep(0.01)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 15  # 3 of them for the collector; the library alone may take 30 and more
        loud = [r for r in server.records() if r["level"] != "info"]
    assert 1 <= len(loud) <= 4, loud
    assert any("lost" in str(r["message"]) or "last spans" in str(r["message"]) for r in loud)
