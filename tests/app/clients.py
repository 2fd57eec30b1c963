"""Both clients as one thing to ask: against an application in this process, or against a script of answers and faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.types import ASGIApp

from app.client import AsyncClient, Client
from app.problems import MEDIA_TYPE

KINDS = (Client, AsyncClient)
ADDRESS = "http://service"
IMAGE = b"\x02 any bytes"  # the fake model's "cat"
Step = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


@dataclass
class Script:
    """A service that answers one request after the other as written; the last step holds for all that follow."""

    steps: Sequence[Step]
    requests: list[httpx.Request] = field(default_factory=list)  # with their bodies read

    def __call__(self, request: httpx.Request) -> httpx.Response:
        step = self.steps[min(len(self.requests), len(self.steps) - 1)]
        self.requests.append(request)
        if isinstance(step, Exception):
            raise step
        return step(request) if callable(step) else step

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)


class Bridge(httpx.BaseTransport):
    """Lets a blocking client, in a thread, ask an application that lives in an event loop."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = httpx.ASGITransport(app=app)
        self._loop = loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return asyncio.run_coroutine_threadsafe(self._ask(request), self._loop).result(30)

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        answer = await self._inner.handle_async_request(
            httpx.Request(request.method, request.url, headers=request.headers, content=request.content)
        )
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())


class Asked:
    """One client of either kind; every method is called with `await`."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    async def __call__(self, verb: str, *args: Any, **options: Any) -> Any:
        method = getattr(self.client, verb)
        if isinstance(self.client, AsyncClient):
            return await method(*args, **options)
        return await asyncio.to_thread(method, *args, **options)


@asynccontextmanager
async def asking(
    kind: type[Client] | type[AsyncClient], service: ASGIApp | Script, address: str = ADDRESS, **options: Any
) -> AsyncIterator[Asked]:
    """A client of that kind and this service."""
    scripted = service.transport if isinstance(service, Script) else None
    if issubclass(kind, AsyncClient):
        transport = scripted or httpx.ASGITransport(app=service)  # type: ignore[arg-type]  # a script has its own
        async with kind(address, transport=transport, **options) as client:
            yield Asked(client)
    else:
        blocking = scripted or Bridge(service, asyncio.get_running_loop())  # type: ignore[arg-type]
        with kind(address, transport=blocking, **options) as client:
            yield Asked(client)


def answer(*, index: int = 2, label: str = "cat", **more: Any) -> httpx.Response:
    """A ranking of one class."""
    found = {
        "predictions": [{"index": index, "label": label, "score": 0.5, "wnid": None}],
        "model": {"name": "default", "variant": "skfake", "digest": "sha256:0"},
        "image": {"width": 4, "height": 3, "format": "PNG"},
    }
    return httpx.Response(200, json={**found, **more})


def refusal(status: int, slug: str, *, headers: dict[str, str] | None = None, **members: Any) -> httpx.Response:
    """A problem document."""
    document = {"type": f"/problems/{slug}", "title": "A title", "status": status, "detail": f"the detail of {slug}", **members}
    return httpx.Response(status, content=json.dumps(document), headers={"Content-Type": MEDIA_TYPE, **(headers or {})})
