"""URL -> bytes, guarded at every step: what it says, where its name leads, and each place it is sent on to.

Imported where the settings allow URLs. Knows no wire format and no image: the decoder judges what comes.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING

import certifi

from app.dialler import Dialler, NotPublic
from app.errors import DeadlinePassed, MalformedRequest, Overloaded, SourceForbidden
from app.exchange import OK, REDIRECTS, Answer, get, unreachable
from app.room import Room
from app.settings import Settings
from app.urls import Target, join, parse

if TYPE_CHECKING:
    from app.context import RequestContext

logger = logging.getLogger("sknet.service")

FETCHES = 32  # at once; an image that is waited for costs a connection and what came of it so far
# The same whether the address is private, does not exist, or somebody listens there: no map of the network inside.
NO_PUBLIC_ADDRESS = "the url leads to no public address"


class Fetcher:
    """Fetches images. Each is counted into the room for all bytes in flight, and into the time of its request."""

    def __init__(self, settings: Settings, room: Room, dialler: Dialler) -> None:
        self._room = room
        self._dialler = dialler
        self._hosts = tuple(host.strip().lower() for host in settings.url_hosts.split(",") if host.strip())
        self._ports = tuple(int(port) for port in settings.url_ports.split(","))
        self._redirects = settings.url_redirects
        self._timeout_s = settings.url_timeout_s
        self._max_bytes = settings.max_body_bytes
        self._agent = f"sknet-serve/{version('sknet-serve')}"
        self._under_way = 0

    async def __call__(self, url: str, context: RequestContext) -> bytes:
        """The bytes at `url`.

        Raises:
            MalformedRequest, SourceForbidden: nothing was sent anywhere, or nothing after the last redirect.
            SourceUnreachable: no whole answer with status 200, in time and as it was asked for.
            BodyTooLarge, DeadlinePassed, Overloaded.
        """
        target = self._allowed(parse(url))
        if self._under_way >= FETCHES:
            raise Overloaded("images fetched at once", FETCHES, 1)
        late = asyncio.get_running_loop().time() + self._timeout_s
        self._under_way += 1
        try:
            with nullcontext() if context.trace is None else context.trace.outgoing(target.scheme, target.host, target.port):
                async with asyncio.timeout_at(min(late, context.deadline.at)):
                    return await self._follow(target, context)
        except TimeoutError:
            if context.deadline.at <= late:
                raise DeadlinePassed(context.deadline.limit_s) from None
            raise unreachable(f"it did not arrive within {self._timeout_s:g} seconds") from None
        except NotPublic as found:
            logger.info("a url was refused: %s", found, extra=context.marks)
            raise SourceForbidden(NO_PUBLIC_ADDRESS) from None
        finally:
            self._under_way -= 1

    async def _follow(self, target: Target, context: RequestContext) -> bytes:
        for _ in range(self._redirects + 1):
            answer = await self._exchange(target, context)
            if answer.status not in REDIRECTS:
                return _image(answer)
            target = self._next(target, answer)
        raise SourceForbidden(f"the url is redirected more than {self._redirects} times")

    async def _exchange(self, target: Target, context: RequestContext) -> Answer:
        reader, writer = await self._dialler.open(target)
        try:
            take = self._room.take
            return await get(reader, writer, target, self._agent, self._max_bytes, lambda count: take(context, count))
        finally:
            writer.transport.abort()  # at once: a goodbye in TLS could be waited for

    def _next(self, target: Target, answer: Answer) -> Target:
        where = answer.headers.get(b"location", [])
        if len(where) != 1:
            raise unreachable(f"its server answered {answer.status} and not where to")
        try:
            found = self._allowed(join(target, where[0].decode("latin-1")))
        except MalformedRequest:  # not the client's doing
            raise SourceForbidden("the url is redirected to something that is no acceptable url") from None
        if (target.scheme, found.scheme) == ("https", "http"):  # whoever sits in between could put in an image
            raise SourceForbidden("the url is redirected from https to http")
        return found

    def _allowed(self, target: Target) -> Target:
        if target.port not in self._ports:
            ports = ", ".join(map(str, self._ports))
            raise SourceForbidden(f"port {target.port} is not fetched from; allowed: {ports}")
        if self._hosts and not any(_covers(host, target.host) for host in self._hosts):
            raise SourceForbidden("images are fetched from certain hosts only, and the url names another")
        return target


def trusted() -> ssl.SSLContext:
    """Who may sign certificates: those the system knows, and Mozilla's list for containers whose system knows none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _covers(allowed: str, host: str) -> bool:
    return host == allowed.removeprefix(".") or (allowed.startswith(".") and host.endswith(allowed))


def _image(answer: Answer) -> bytes:
    if answer.status != OK:
        raise unreachable(f"its server answered {answer.status}")
    if not answer.body:
        raise unreachable("its server sent nothing")
    return bytes(answer.body)
