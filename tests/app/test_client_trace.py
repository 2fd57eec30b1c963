"""Which trace the client's requests belong to: the one it is told, OpenTelemetry's current one, or none."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from app.client import AsyncClient, Client, continuing
from app.client_trace import trace_headers
from tests.app.asgi import serving
from tests.app.clients import ADDRESS, IMAGE, Bridge, Script
from tests.app.tracing import PARENT_ID, SAMPLED, TRACE_ID, Memory, parent_id, trace_id


@pytest.fixture
def current() -> Iterator[str]:
    """A span is current; its `traceparent`."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("a program")
    with tracer.start_as_current_span("work") as span:
        ids = span.get_span_context()
        yield f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}"


def test_whoever_traces_nothing_sends_nothing() -> None:
    assert trace_headers() == {}
    with continuing(None):
        assert trace_headers() == {}


def test_a_current_span_is_passed_on(current: str) -> None:
    assert trace_headers() == {"traceparent": current}


def test_what_is_told_goes_before_what_is_current(current: str) -> None:
    with continuing(SAMPLED, "a=1"):
        assert trace_headers() == {"traceparent": SAMPLED, "tracestate": "a=1"}
        with continuing(SAMPLED.replace("0af", "1af")):
            assert trace_headers() == {"traceparent": SAMPLED.replace("0af", "1af")}
        assert trace_headers()["tracestate"] == "a=1"
    assert trace_headers() == {"traceparent": current}


NEVER = ["ff" + SAMPLED[2:], SAMPLED.replace(TRACE_ID, "0" * 32), SAMPLED.replace(PARENT_ID, "0" * 16)]


@pytest.mark.parametrize("given", ["", "nonsense", SAMPLED.upper(), SAMPLED + "\r\nX: y", SAMPLED + "\n", *NEVER])
def test_what_strangers_make_up_changes_nothing(given: str) -> None:
    with continuing(given, "a=1"):
        assert trace_headers() == {}
    with continuing(SAMPLED, "a=1\r\nX: y"):
        assert trace_headers() == {"traceparent": SAMPLED}


def test_every_try_and_every_thread_sends_it() -> None:
    busy = httpx.Response(429, headers={"Retry-After": "0"}, json={})
    script = Script([busy, httpx.Response(404, json={})])
    with Client(ADDRESS, transport=script.transport) as client, continuing(SAMPLED, "a=1"):
        client.classify_many([IMAGE] * 4, concurrency=2)
    assert len(script.requests) == 5
    assert {(r.headers["traceparent"], r.headers["tracestate"]) for r in script.requests} == {(SAMPLED, "a=1")}


async def test_the_asynchronous_client_sends_that_of_its_task() -> None:
    script = Script([httpx.Response(404, json={})])
    async with AsyncClient(ADDRESS, transport=script.transport) as client:

        async def ask(given: str) -> None:
            with continuing(given):
                await asyncio.sleep(0)
                await client.classify_many([IMAGE] * 2)

        others = [SAMPLED, SAMPLED.replace("0af", "1af")]
        await asyncio.gather(*map(ask, others))
    assert sorted(r.headers["traceparent"] for r in script.requests) == sorted(2 * others)


async def test_from_the_client_to_the_service_it_is_one_trace() -> None:
    memory = Memory()
    async with serving(make_tracing=memory.make, tracing=True) as service:
        loop = asyncio.get_running_loop()

        def ask() -> Any:
            with Client(ADDRESS, transport=Bridge(service.app, loop)) as client, continuing(SAMPLED):
                return client.classify(IMAGE)

        assert (await asyncio.to_thread(ask)).best.label == "cat"
    assert (trace_id(memory.server), parent_id(memory.server)) == (TRACE_ID, PARENT_ID)


def test_opentelemetry_is_not_imported_for_it() -> None:
    code = (
        "import sys; from app.client import Client; from app import client_wire\n"
        "assert client_wire.models().trace == {}\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stderr
    assert trace.get_current_span().get_span_context().is_valid is False
