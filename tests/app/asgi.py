"""Start an application in this process, and talk to it: through a client, or message by message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.main import MakeFetch, MakeTracing, create_app
from app.metrics import Metrics
from app.middleware import RequestLog
from app.problems import answer
from app.services import Services
from app.settings import Settings
from tests.fakes import FakeModel


@dataclass(frozen=True)
class Service:
    """An application that runs, and a client of it."""

    app: FastAPI
    client: httpx.AsyncClient
    model: FakeModel

    @property
    def parts(self) -> Services:
        services = self.app.state.services
        assert isinstance(services, Services)
        return services

    def metric(self, name: str, /, **labels: str) -> float:
        """A sample of `/metrics`; 0 where there is none yet."""
        families = text_string_to_metric_families(self.parts.metrics.render().decode())
        samples = [s for family in families for s in family.samples if s.name == name and labels.items() <= s.labels.items()]
        assert len(samples) <= 1, samples
        return samples[0].value if samples else 0.0


@asynccontextmanager
async def serving(
    model: FakeModel | None = None,
    *,
    make_fetch: MakeFetch | None = None,
    make_tracing: MakeTracing | None = None,
    **settings: Any,
) -> AsyncIterator[Service]:
    """A service that is ready."""
    fake = model or FakeModel()
    app = create_app(Settings(**settings), load=lambda _: fake, make_fetch=make_fetch, make_tracing=make_tracing)
    async with app.router.lifespan_context(app), client_of(app) as client:
        try:
            yield Service(app, client, fake)
        finally:
            if fake.gate is not None:
                fake.gate.set()  # a test that failed must not hang as well


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service")


async def until(true: Any, timeout_s: float = 5.0) -> None:
    """Wait for a condition that another task brings about."""
    async with asyncio.timeout(timeout_s):
        while not true():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


def problem(response: httpx.Response | Answer, status: int, slug: str) -> dict[str, Any]:
    """Hold that this is the problem document of that status and slug, and hand it over."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), response
    body: dict[str, Any] = json.loads(response.content)
    assert body["type"] == f"/problems/{slug}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert response.headers["x-request-id"]
    assert "total;dur=" in response.headers["server-timing"]
    return body


# Message by message: what no client sends, or sends so slowly.


def http_scope(
    method: str = "POST", path: str = "/classify", *, query: str = "", headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        "client": ("192.0.2.1", 1234),
        "server": ("service", 80),
    }


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


LEFT: Message = {"type": "http.disconnect"}


@dataclass
class Answer:
    """What an application sent."""

    messages: list[Message] = field(default_factory=list)
    received: int = 0  # messages it asked for and got
    received_first: int = 0  # those before it answered

    @property
    def started(self) -> bool:
        return bool(self.messages)

    @property
    def status_code(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> httpx.Headers:
        return httpx.Headers(self.messages[0]["headers"])

    @property
    def content(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.messages[1:])

    @property
    def closing(self) -> bool:
        return bool(self.headers.get("connection") == "close")

    @property
    def whole(self) -> bool:
        return len(self.content) == int(self.headers.get("content-length", -1))


async def exchange(app: ASGIApp, scope: Scope, incoming: Sequence[Message] = (), *, leave: asyncio.Event | None = None) -> Answer:
    """One request. After the incoming messages the client is silent, and leaves when told to.

    Where nobody tells it, it leaves as clients do: once it has the whole answer of a connection that will be closed.
    """
    answer = Answer()
    waiting = list(incoming)
    left = leave or asyncio.Event()

    async def receive() -> Message:
        if not waiting:
            await left.wait()
            return LEFT
        answer.received += 1
        return waiting.pop(0)

    async def send(message: Message) -> None:
        if not answer.started:
            answer.received_first = answer.received
        answer.messages.append(message)
        if leave is None and answer.closing and answer.whole:
            left.set()

    async with asyncio.timeout(10):
        await app(scope, receive, send)
    return answer


# Tiny applications, and the outermost middleware, without which the others do not work.


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """A tiny application: reads the body, answers its length; errors become problems as in the real one."""
    try:
        body = await Request(scope, receive).body()
    except ClientDisconnect:
        raise
    except Exception as error:  # noqa: BLE001 - stands for the application's own handlers
        await answer(error, scope, receive, send)
        return
    await PlainTextResponse(str(len(body)))(scope, receive, send)


async def read_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("done")(scope, receive, send)


def logged(app: ASGIApp, deadline_s: float = 10.0) -> RequestLog:
    return RequestLog(app, metrics=Metrics(), deadline_s=deadline_s, timed=frozenset({"/classify", "/classify/batch"}))
