"""The spans of requests: whose children they are, what they say, and where they lie."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import threading
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_OFF
from opentelemetry.trace import StatusCode

from app import spans as spans_module
from app.fetch import Fetcher
from tests.app.asgi import exchange, http_scope, part, problem, serving, until
from tests.app.origin import answer, dialler, ok, origin
from tests.app.tracing import (
    PARENT_ID,
    SAMPLED,
    TRACE_ID,
    UNSAMPLED,
    Memory,
    attributes,
    parent_id,
    span_id,
    trace_id,
)
from tests.fakes import SECRET, FakeModel

RAW = {"Content-Type": "image/png"}


def traced(memory: Memory, model: FakeModel | None = None, **settings: Any) -> Any:
    return serving(model, make_tracing=memory.make, tracing=True, **settings)


def lies_within(inner: ReadableSpan, outer: ReadableSpan) -> bool:
    slack = 2_000  # ns: moments are added as floats
    return start(outer) - slack <= start(inner) <= end(inner) <= end(outer) + slack


def start(span: ReadableSpan) -> int:
    assert span.start_time is not None
    return span.start_time


def end(span: ReadableSpan) -> int:
    assert span.end_time is not None
    return span.end_time


# whose child


async def test_the_parent_is_whom_the_request_names() -> None:
    memory = Memory()
    async with traced(memory) as service:
        headers = {**RAW, "traceparent": SAMPLED, "tracestate": "a=1,b=2"}
        response = await service.client.post("/classify", content=b"x", headers=headers)
    server = memory.server
    assert (trace_id(server), parent_id(server)) == (TRACE_ID, PARENT_ID)
    assert server.parent is not None
    assert server.parent.is_remote
    assert server.context is not None
    assert server.context.trace_state.to_header() == "a=1,b=2"
    assert response.headers["traceresponse"] == f"00-{TRACE_ID}-{span_id(server)}-01"
    assert {(trace_id(p), parent_id(p)) for p in memory.parts} == {(TRACE_ID, span_id(server))}


@pytest.mark.parametrize(
    "given",
    [
        None, "", "garbage", f"00-{'0' * 32}-{PARENT_ID}-01", f"00-{TRACE_ID}-{'0' * 16}-01", f"ff-{TRACE_ID}-{PARENT_ID}-01",
        f"00-{TRACE_ID.upper()}-{PARENT_ID}-01", f"00-{TRACE_ID}-{PARENT_ID}-01-more", SAMPLED + " " * 600, "\xe4" * 55,
    ],
)  # fmt: skip
async def test_without_a_valid_traceparent_a_trace_begins_here(given: str | None) -> None:
    memory = Memory()
    async with traced(memory) as service:
        scope = http_scope("GET", "/models", headers={} if given is None else {"traceparent": given, "tracestate": "a=1"})
        got = await exchange(service.app, scope)
    assert got.status_code == 200
    assert memory.server.parent is None
    assert trace_id(memory.server) != TRACE_ID
    assert got.headers["traceresponse"].split("-")[1:3] == [trace_id(memory.server), span_id(memory.server)]
    assert not memory.server.context.trace_state


async def test_of_two_traceparents_none_is_believed() -> None:
    memory = Memory()
    async with traced(memory) as service:
        scope = http_scope("GET", "/models", headers={"traceparent": SAMPLED})
        scope["headers"].append((b"traceparent", SAMPLED.replace("0af", "1af").encode()))
        await exchange(service.app, scope)
    assert memory.server.parent is None


@pytest.mark.parametrize("state", ["a" * 600, "no pairs", "a=1,a=2", ",".join(f"k{i}=1" for i in range(40))])
async def test_a_bad_tracestate_spoils_no_traceparent(state: str) -> None:
    memory = Memory()
    async with traced(memory) as service:
        await service.client.get("/models", headers={"traceparent": SAMPLED, "tracestate": state})
    assert trace_id(memory.server) == TRACE_ID


@pytest.mark.parametrize(
    ("sampler", "given", "sent"),
    [
        (None, UNSAMPLED, False), (None, SAMPLED, True), (DEFAULT_OFF, None, False), (DEFAULT_OFF, SAMPLED, True),
        (ALWAYS_ON, UNSAMPLED, True), (ALWAYS_OFF, SAMPLED, False),
    ],
)  # fmt: skip
async def test_the_sampler_decides_and_by_default_heeds_the_parent(sampler: Any, given: str | None, sent: bool) -> None:
    memory = Memory() if sampler is None else Memory(sampler)
    async with traced(memory) as service:
        headers = RAW if given is None else {**RAW, "traceparent": given}
        response = await service.client.post("/classify", content=b"x", headers=headers)
    assert bool(memory.spans) == sent
    told = re.fullmatch("00-([0-9a-f]{32})-[0-9a-f]{16}-0([0-3])", response.headers["traceresponse"])
    assert told is not None
    assert (told[1] == TRACE_ID) == (given is not None)
    assert bool(int(told[2]) & 1) == sent


async def test_a_span_that_happens_to_be_current_here_is_no_parent() -> None:
    memory, other = Memory(), Memory().make()
    span = other.begin(http_scope("GET", "/"), 0.0)
    assert span is not None
    token = context.attach(trace.set_span_in_context(span._span))
    try:
        async with traced(memory) as service:
            await service.client.get("/models")
    finally:
        context.detach(token)
    assert memory.server.parent is None


async def test_two_applications_have_nothing_in_common() -> None:
    one, two = Memory(), Memory()
    before = trace.get_tracer_provider()
    async with traced(one) as first, traced(two) as second:
        await first.client.get("/models")
        await second.client.get("/problems")
    assert [s.name for s in one.spans] == ["GET /models"]
    assert [s.name for s in two.spans] == ["GET /problems"]
    assert trace.get_tracer_provider() is before


# what they say


async def test_phases_lie_one_after_the_other_within_the_request() -> None:
    memory = Memory()
    async with traced(memory, FakeModel(prepare_s=0.01, run_s=0.02)) as service:
        headers = {**RAW, "X-Request-ID": "abc", "User-Agent": "tester", "Host": "example.org:81"}
        await service.client.post("/classify?top_k=2", content=b"x", headers=headers)
    server, parts = memory.server, memory.parts
    assert (server.name, server.kind.name, server.status.status_code) == ("POST /classify", "SERVER", StatusCode.UNSET)
    expected = {
        "http.request.method": "POST", "http.route": "/classify", "http.response.status_code": 200, "url.path": "/classify",
        "url.scheme": "http", "sknet.request_id": "abc", "sknet.images": 1, "user_agent.original": "tester",
        "server.address": "example.org", "server.port": 81, "network.protocol.version": "1.1", "client.address": "127.0.0.1",
    }  # fmt: skip
    assert attributes(server) == expected  # and not the query
    assert [p.name for p in parts] == ["queue", "prepare", "queue", "inference"]
    assert [attributes(p).get("sknet.queue_for") for p in parts] == ["prepare", None, "inference", None]
    assert attributes(parts[3]) == {
        "sknet.batch_size": 1, "sknet.model.variant": "skfake", "sknet.model.digest": "sha256:" + "0" * 64,
    }  # fmt: skip
    assert all(lies_within(p, server) for p in parts)
    for earlier, later in itertools.pairwise(parts):
        assert end(earlier) <= start(later) + 2_000
    took = {p.name: end(p) - start(p) for p in parts}
    assert took["prepare"] >= 10e6 - 2_000
    assert took["inference"] >= 20e6 - 2_000


async def test_each_image_of_a_batch_has_its_phases() -> None:
    memory = Memory()
    async with traced(memory) as service:
        files = [("files", (name, name.encode())) for name in ("a", "bad", "c")]
        assert (await service.client.post("/classify/batch", files=files)).status_code == 200
    assert attributes(memory.server)["sknet.images"] == 2
    which = {(attributes(p)["sknet.image"], p.name) for p in memory.parts}
    assert which == {(i, name) for i in (0, 2) for name in ("queue", "prepare", "inference")}
    assert all(lies_within(p, memory.server) for p in memory.parts)


async def test_a_large_batch_does_not_flood_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans_module, "MOST_IMAGES", 3)
    memory = Memory()
    async with traced(memory) as service:
        await service.client.post("/classify/batch", files=[("files", (str(i), b"x")) for i in range(8)])
    assert attributes(memory.server)["sknet.images"] == 8
    assert len([p for p in memory.parts if p.name == "inference"]) == 3


@pytest.mark.parametrize(("accept", "drawn"), [("application/json", []), ("image/png", ["draw"])])
async def test_an_explanation_shows_its_passes(accept: str, drawn: list[str]) -> None:
    memory = Memory()
    async with traced(memory) as service:
        response = await service.client.post("/explain", content=b"x", headers={**RAW, "Accept": accept})
        assert response.status_code == 200
    assert memory.server.name == "POST /explain"
    names = [p.name for p in memory.parts if p.name != "queue"]
    assert names == ["prepare", "inference", "inference", "inference", "explain", *drawn]
    assert all(lies_within(p, memory.server) for p in memory.parts)


async def test_an_answer_that_was_known_has_no_phases() -> None:
    memory = Memory()
    async with traced(memory, result_cache=10) as service:
        await service.client.post("/classify", content=b"x", headers=RAW)
        memory.exporter.clear()
        await service.client.post("/classify", content=b"x", headers=RAW)
    assert [s.name for s in memory.spans] == ["POST /classify"]


async def test_a_fault_of_ours_is_an_error_and_one_of_the_clients_is_none() -> None:
    memory = Memory()
    async with traced(memory) as service:
        for body, status in ((b"bug", 500), (b"bad", 422)):
            memory.exporter.clear()
            assert (await service.client.post("/classify", content=body, headers=RAW)).status_code == status
            told = attributes(memory.server)
            assert told["http.response.status_code"] == status
            ours = status == 500
            assert told.get("error.type") == ("internal-error" if ours else None)
            assert memory.server.status.status_code is (StatusCode.ERROR if ours else StatusCode.UNSET)
            assert told["sknet.problem"] == ("internal-error" if ours else "image-undecodable")
            assert SECRET not in str(memory.server.to_json())


async def test_what_is_refused_for_want_of_room_has_a_span() -> None:
    memory, gate = Memory(), threading.Event()
    async with traced(memory, FakeModel(gate=gate), max_queue=1) as service:
        first = asyncio.create_task(service.client.post("/classify", content=b"x", headers=RAW))
        await until(lambda: service.parts.classifier._current().scheduler.admitted == 1)
        problem(await service.client.post("/classify", content=b"x", headers=RAW), 429, "overloaded")
        told = attributes(memory.server)  # the other one is not over
        assert (told["http.response.status_code"], told["sknet.problem"]) == (429, "overloaded")
        assert (memory.server.name, memory.parts) == ("POST /classify", [])
        gate.set()
        assert (await first).status_code == 200


async def test_a_client_that_left_has_a_span_without_a_status() -> None:
    memory, gate, leave = Memory(), threading.Event(), asyncio.Event()
    async with traced(memory, FakeModel(gate=gate)) as service:
        leaving = asyncio.create_task(exchange(service.app, http_scope(headers=RAW), [part(b"x")], leave=leave))
        await asyncio.to_thread(service.model.entered.wait, 5)
        assert memory.spans == []
        leave.set()
        assert not (await leaving).started
        gate.set()
    told = attributes(memory.server)
    assert told["sknet.client_left"] is True
    assert "http.response.status_code" not in told


async def test_paths_and_methods_of_strangers_make_no_new_names() -> None:
    memory = Memory()
    async with traced(memory) as service:
        for method, path in (("GET", "/secret-" + "x" * 600), ("BREW", "/pot"), ("BREW", "/classify")):
            await exchange(service.app, http_scope(method, path))
    assert {s.name for s in memory.spans} == {"GET", "HTTP"}
    told = {str(attributes(s)["url.path"]): attributes(s) for s in memory.spans}
    assert {len(path) for path in told} == {500, len("/pot"), len("/classify")}
    pot = told["/pot"]
    assert (pot["http.request.method"], pot["http.request.method_original"]) == ("_OTHER", "BREW")
    assert "http.route" not in pot


async def test_a_probe_is_traced_only_for_whom_traces() -> None:
    memory = Memory()
    async with traced(memory) as service:
        for path in ("/livez", "/readyz", "/healthz", "/metrics"):
            response = await service.client.get(path)
            assert (response.status_code, "traceresponse" in response.headers, memory.spans) == (200, False, [])
        await service.client.get("/livez", headers={"traceparent": SAMPLED})
    assert memory.server.name == "GET /livez"


async def test_fetching_an_image_is_a_span_and_tells_the_stranger_nothing() -> None:
    memory = Memory()
    async with origin({"/cat?key=1": ok(b"\x02cat"), "/nothing": answer("404 Not Found")}) as server:
        options: dict[str, Any] = {"allow_urls": True, "url_ports": str(server.port), "tracing": True}
        made = serving(
            make_fetch=lambda chosen, room: Fetcher(chosen, room, dialler(server)), make_tracing=memory.make, **options
        )
        async with made as service:
            headers = {"traceparent": SAMPLED, "tracestate": "a=1"}
            for path, status in (("/cat?key=1", 200), ("/nothing", 422)):
                response = await service.client.post("/classify", json={"url": server.url(path)}, headers=headers)
                assert response.status_code == status
        assert "trace" not in "".join(server.requests).lower()
    (good, bad) = [s for s in memory.parts if s.name == "GET"]
    servers = [s for s in memory.spans if s.kind.name == "SERVER"]
    assert [parent_id(s) for s in (good, bad)] == [span_id(s) for s in servers]
    assert good.kind.name == "CLIENT"
    assert set(attributes(good)) == {"http.request.method", "url.scheme", "server.address", "server.port"}
    assert (attributes(bad)["error.type"], bad.status.status_code) == ("SourceUnreachable", StatusCode.ERROR)
    assert "key" not in str(attributes(good))


# beside them: log lines


async def test_every_log_line_of_a_request_carries_its_ids(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sknet.access")
    memory = Memory()
    async with traced(memory) as service:
        await service.client.post("/classify", content=b"bug", headers={**RAW, "X-Request-ID": "abc"})
    lines = [r for r in caplog.records if hasattr(r, "request_id")]
    assert {r.name for r in lines} == {"sknet.access", "sknet.service"}
    ids = {(vars(r)["request_id"], vars(r)["trace_id"], vars(r)["span_id"]) for r in lines}
    assert ids == {("abc", trace_id(memory.server), span_id(memory.server))}


async def test_without_tracing_nothing_of_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sknet.access")

    def make(_: frozenset[str]) -> Any:
        pytest.fail("it was made")

    async with serving(make_tracing=make) as service:
        response = await service.client.post("/classify", content=b"x", headers={**RAW, "traceparent": SAMPLED})
    assert "traceresponse" not in response.headers
    (line,) = [r for r in caplog.records if r.name == "sknet.access"]
    assert vars(line)["traceparent"] == SAMPLED
    assert not {"trace_id", "span_id"} & set(vars(line))


# whatever a span fails at


@pytest.mark.parametrize("digit", ["\xb2", "\xb9", "\xb3"])
async def test_a_port_of_superscripts_is_none(digit: str, caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    async with traced(memory) as service:
        with caplog.at_level(logging.INFO):
            got = await exchange(service.app, http_scope("GET", "/models", headers={"Host": f"x:{digit}"}))
    assert got.status_code == 200
    assert [record.message for record in caplog.records if record.name == "sknet.access"] == ["GET /models 200"]
    assert (attributes(memory.server)["server.address"], "server.port" in attributes(memory.server)) == (f"x:{digit}", False)


async def test_a_request_is_logged_and_answered_whatever_its_span_fails_at(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no span")

    monkeypatch.setattr(spans_module, "_of_client", fails)
    async with traced(Memory()) as service:
        with caplog.at_level(logging.INFO):
            got = await service.client.get("/models")
    assert got.status_code == 200
    assert [record.message for record in caplog.records if record.name == "sknet.access"] == ["GET /models 200"]
    (fault,) = [record for record in caplog.records if record.message == "span not sent"]
    assert (fault.levelname, fault.__dict__["request_id"]) == ("ERROR", got.headers["x-request-id"])
