"""The client for programs that run on asyncio. It does what `app.client.Client` does; what that says of each call holds here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar

import httpx

from app import client_wire as wire
from app.client_errors import ClientError, NotReady
from app.client_failures import BROKEN_OFF, Answer, failure_of, hold, keep_here, no_answer
from app.client_images import ImageLike, encoded
from app.client_order import in_order_async
from app.client_progress import Progress, shown
from app.client_results import Classification, Explanation, ModelDocument, Readiness, Unloaded
from app.client_retries import POLL_S, Attempts

T = TypeVar("T")
ImageT = TypeVar("ImageT", bound=ImageLike)


class AsyncClient:
    """A service, asked from any number of tasks of one event loop. Arguments as of `Client`."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 10.0,
        retries: int | None = None,
        concurrency: int = 8,
        transport: httpx.AsyncBaseTransport | None = None,
        trust_env: bool = False,
    ) -> None:
        self._service = wire.Service(base_url, key, timeout_s, retries, concurrency)
        hooks = {"response": [_keep_here]}
        self._http = httpx.AsyncClient(transport=transport, trust_env=trust_env, limits=wire.LIMITS, event_hooks=hooks)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._service.address!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Nothing can be asked afterwards."""
        await self._http.aclose()

    async def classify(
        self, image: ImageLike, *, top_k: int | None = None, min_score: float | None = None, explain: bool = False
    ) -> Classification:
        """The best classes of one image. Raises ClientError."""
        data = await _encoded(image)
        return await self._send(wire.classify(data, top_k=top_k, min_score=min_score, explain=explain))

    def iter_classify(
        self,
        images: Iterable[ImageT] | AsyncIterable[ImageT],
        *,
        top_k: int | None = None,
        min_score: float | None = None,
        explain: bool = False,
        concurrency: int | None = None,
    ) -> AsyncGenerator[tuple[ImageT, Classification | ClientError]]:
        """Each image with its ranking or its error, in the order of the images, as they become known.

        The images may be an asynchronous iterable as well. Who may leave the loop early puts `contextlib.aclosing` around it, so
        that the images under way are given up then.
        """

        async def ask(image: ImageT) -> Classification:
            return await self.classify(image, top_k=top_k, min_score=min_score, explain=explain)

        return in_order_async(images, ask, self._service.at_once(concurrency))

    async def classify_many(
        self,
        images: Iterable[ImageLike] | AsyncIterable[ImageLike],
        *,
        top_k: int | None = None,
        min_score: float | None = None,
        explain: bool = False,
        concurrency: int | None = None,
        progress: Progress = False,
    ) -> list[Classification | ClientError]:
        """The ranking or the error of every image, in their order."""
        found = []
        with shown(progress, images) as count:
            each = self.iter_classify(images, top_k=top_k, min_score=min_score, explain=explain, concurrency=concurrency)
            async with aclosing(each):
                async for _, result in each:
                    found.append(result)
                    count()
        return found

    async def explain(self, image: ImageLike, *, class_index: int | None = None, top_k: int | None = None) -> Explanation:
        """Kernel attention, scale sweep and class activation map, for a class or the best one."""
        return await self._send(wire.explanation(await _encoded(image), class_index=class_index, top_k=top_k))

    async def figure(self, image: ImageLike, *, class_index: int | None = None, top_k: int | None = None) -> bytes:
        """The same drawn, as a PNG."""
        return await self._send(wire.picture(await _encoded(image), class_index=class_index, top_k=top_k))

    async def overlay(self, image: ImageLike, *, class_index: int | None = None) -> bytes:
        """The image under its class activation map, as a PNG of its own size."""
        return await self._send(wire.picture(await _encoded(image), class_index=class_index, overlay=True))

    async def models(self) -> list[ModelDocument]:
        """Every model of the service."""
        return await self._send(wire.models())

    async def model(self, name: str) -> ModelDocument:
        """One of them. Raises NotFound where there is none of that name."""
        return await self._send(wire.model(name))

    async def ready(self) -> Readiness:
        """Whether the service answers now, asked once. Raises Unreachable or UnexpectedAnswer where there is no such service."""
        try:
            return await self._send(wire.readiness(), attempts=Attempts(self._service.timeout_s, most=0))
        except NotReady as error:
            return Readiness(False, error.reasons or (str(error),))

    async def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once the service is ready. Raises NotReady, Unreachable or DeadlinePassed if it was not within that time."""
        await self._send(wire.readiness(), attempts=Attempts(timeout_s, longest_s=POLL_S))

    async def load(self, name: str, checkpoint: str | None = None, *, timeout_s: float = 300.0) -> ModelDocument:
        """Put another checkpoint in the place of what serves. Raises CheckpointRefused where it cannot serve."""
        return await self._send(wire.load(name, checkpoint), timeout_s=timeout_s)

    async def unload(self, name: str, *, timeout_s: float = 60.0) -> Unloaded:
        """Serve nothing until something is loaded."""
        return await self._send(wire.unload(name), timeout_s=timeout_s)

    async def _send(self, call: wire.Call[T], *, timeout_s: float | None = None, attempts: Attempts | None = None) -> T:
        """Try until there is an answer."""
        tries = attempts or self._service.attempts(call, timeout_s)
        while True:
            try:
                answer = await self._ask(call, tries)
                failure = failure_of(answer)
            except BROKEN_OFF as error:
                failure = no_answer(error, self._service.address, tries.timeout_s)
            if failure is None:
                return call.read(answer)
            failure.request_id = call.id
            await asyncio.sleep(tries.pause_after(failure))

    async def _ask(self, call: wire.Call[T], tries: Attempts) -> Answer:
        """One try. httpx bounds each write and read, not all of them together."""
        left_s = tries.begin()
        async with asyncio.timeout(left_s):
            response = await self._http.send(self._service.request(call, left_s), stream=True)
            try:
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    hold(len(body), call.most_bytes, self._service.address)
            finally:
                await response.aclose()
        return Answer(response.status_code, response.headers, bytes(body))


async def _keep_here(response: httpx.Response) -> None:
    keep_here(response)


async def _encoded(image: ImageLike) -> bytes:
    """In a thread: files are read there, and pictures encoded."""
    return image if isinstance(image, bytes) and image else await asyncio.to_thread(encoded, image)
