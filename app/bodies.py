"""Bounds on what clients send: bodies that are too large, all bodies together, what no queue has room for, paths of no route.

Pure ASGI, so that bodies stream and nothing is buffered here. Whatever can be refused is refused before its body is read.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import Deadline, RequestContext, context_of
from app.errors import AppError, BodyTimeout, BodyTooLarge, RouteNotFound, UnsupportedMedia
from app.inflated import NONE, codings_of
from app.problems import answer
from app.room import Room

LINGER_S = 2.0  # how long a refused body is still read, to be thrown away
PACE_S = 0.002  # for one read of that, about 256 kB, of all connections together: some 5 % of a processor
SMALL_BYTES = 262_144  # a refused body up to this size is read to its end first, so that its connection stays of use
SMALL_S = 0.1  # and not waited for any longer
# No route has any in its path, but the router takes "/classify\n" to "/classify" (a `$` of `re` does), past all that is by path.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

Refuse = Callable[[int, Deadline], AppError | None]  # (images, deadline) -> why there is no room for them


class BodyLimits:
    """Refuses bodies that are too large, before reading where a length is announced; bounds all bodies together, and time.

    `gate` is asked first, of every request; `refusals` tells, by path, who is asked before the body of a POST is read, and
    `uncompressed` are the paths whose bodies nobody unpacks.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        room: Room,
        by_path: Mapping[str, int],
        refusals: Mapping[str, Refuse],
        uncompressed: frozenset[str] = frozenset(),
        gate: Callable[[Scope], AppError | None] | None = None,
    ) -> None:
        self._app = app
        self.room = room
        self._max_body_bytes = max_body_bytes
        self._by_path = by_path
        self._refusals = refusals
        self._uncompressed = uncompressed
        self._gate = gate
        self._lingering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive, send, self, self._by_path.get(scope["path"], self._max_body_bytes))
        refusal = self._refusal(scope, body)
        if refusal is not None:
            if not isinstance(refusal, BodyTooLarge):  # its client would do wrong to send the same again
                await body.read_if_small()
            await answer(refusal, scope, receive, body.send)
            return
        # Room is taken as bytes arrive, not as they are announced: silence must not keep others out.
        try:
            await self._app(scope, body.receive, body.send)
        finally:
            self.room.give_back(context_of(scope))

    def _refusal(self, scope: Scope, body: _Body) -> AppError | None:
        if self._gate is not None and (closed := self._gate(scope)) is not None:
            return closed
        if _CONTROL.search(scope["path"]) is not None:
            return RouteNotFound(scope["path"])
        if body.announced > body.limit:
            return BodyTooLarge(body.limit, body.announced)
        if body.coding and scope["method"] == "POST" and scope["path"] in self._uncompressed and codings_of(body.coding):
            return UnsupportedMedia(body.coding, (NONE,), "Content-Encoding")
        full = self.room.refusal(body.announced)
        if full is not None:
            return full
        refuse = self._refusals.get(scope["path"]) if scope["method"] == "POST" else None
        return None if refuse is None else refuse(1, context_of(scope).deadline)

    async def throw_away(self, receive: Receive) -> None:
        """Read for a moment what nobody wants; the more connections do so, the slower each, since reading is work as well."""
        self._lingering += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while _more(await receive()):  # noqa: ASYNC110 - it waits so that others may go on, not for something
                        await asyncio.sleep(PACE_S * self._lingering)
        finally:
            self._lingering -= 1


class _Body:
    """The body of one request, on its way."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: BodyLimits, limit: int) -> None:
        self.limit = limit
        self.announced = 0
        self.coding = ""
        self._receive = receive
        self._send = send
        self._limits = limits
        self._context: RequestContext = context_of(scope)
        self._counted = 0
        self._complete = False
        self._expected = self._waits_for_go = False
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                self.announced = int(value[:18])
                self._expected = self._expected or self.announced > 0
            elif name == b"transfer-encoding":
                self._expected = True
            elif name == b"expect":
                self._waits_for_go = True
            elif name == b"content-encoding":  # several lines are one list (RFC 9110, section 5.3)
                self.coding += (", " if self.coding else "") + value.decode("latin-1")

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._context.deadline.at):
                message = await self._receive()
        except TimeoutError:
            raise BodyTimeout(self._context.deadline.limit_s) from None
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            self._counted += count
            self._complete = not message.get("more_body", False)
            if self._counted > self.limit:
                raise BodyTooLarge(self.limit, self._counted)
            self._limits.room.take(self._context, count)
        return message

    async def read_if_small(self) -> None:
        """Of a refused request whose body is under way anyway: a client that comes back needs no new connection then."""
        if 0 < self.announced <= SMALL_BYTES and not self._waits_for_go:
            with suppress(TimeoutError):
                async with asyncio.timeout(SMALL_S):
                    while _more(await self._receive()):
                        pass
                    self._complete = True

    async def send(self, message: Message) -> None:
        unread = self._expected and not self._complete
        if unread and message["type"] == "http.response.start":
            # The rest of the body is not read, so the connection cannot be used for another request.
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        if not unread or message["type"] != "http.response.body" or message.get("more_body", False):
            await self._send(message)
            return
        # The whole answer goes out, then the rest of the body is thrown away for a moment: closing on unread bytes
        # resets the connection, and many clients then never see the answer (RFC 9112, section 9.6).
        await self._send({**message, "more_body": True})
        await self._limits.throw_away(self._receive)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _more(message: Message) -> bool:
    return message["type"] == "http.request" and bool(message.get("more_body", False))
