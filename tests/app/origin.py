"""A web server of somebody else, on loopback, that does whatever a test wants; and a fetcher for which it is public."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from app.context import Deadline, RequestContext
from app.dialler import Dialler, judge
from app.fetch import Fetcher
from app.netguard import IPAddress
from app.room import Room
from app.settings import Settings

HOST = "images.example.org"
Reply = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def ok(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A whole answer with status 200."""
    return answer("200 OK", body, f"Content-Length: {len(body) if length is None else length}", *headers)


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode() + body


def redirect(location: str, code: int = 302) -> bytes:
    return answer(f"{code} Moved", b"", f"Location: {location}", "Content-Length: 0")


@dataclass
class Origin:
    """A running server: what it answers by path, and what it saw."""

    port: int
    replies: dict[str, Reply] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)  # each with its headers
    connections: int = 0
    left: int = 0  # clients that were gone before their answer was

    def url(self, path: str = "/", host: str = HOST, scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.requests.append(request)
            reply = self.replies[request.split(" ")[1]]
            if isinstance(reply, bytes):
                writer.write(reply)
                await writer.drain()
            else:
                await reply(reader, writer)
        except (OSError, EOFError, asyncio.IncompleteReadError):
            self.left += 1
        finally:
            writer.close()
            with suppress(OSError, ssl.SSLError):
                await writer.wait_closed()


@asynccontextmanager
async def origin(replies: Mapping[str, Reply] | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Origin]:
    """A server on a free port of loopback."""
    running = Origin(0, dict(replies or {}))
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0, ssl=tls)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()


@dataclass
class Names:
    """A resolver: by host, what it answers each time it is asked; the last answer stays."""

    answers: dict[str, list[Sequence[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        given = self.answers.get(host, [("127.0.0.1",)] if host == HOST else [])
        if not given:
            raise OSError("no such name")
        return given.pop(0) if len(given) > 1 else given[0]


def only(port: int) -> Callable[[IPAddress, int], str | None]:
    """For a judge: 127.0.0.1 is public at this one port, and everything else what it is."""
    return lambda address, at: None if (address, at) == (ip_address("127.0.0.1"), port) else judge(address, at)


def fetcher(origin: Origin, names: Names | None = None, *, tls: ssl.SSLContext | None = None, **settings: Any) -> Fetcher:
    """What fetches from that server by its name, as it would from anybody's."""
    chosen = Settings(**{"allow_urls": True, "url_ports": f"80,443,{origin.port}", "url_timeout_s": 5, **settings})
    return Fetcher(chosen, Room(10**9, lambda: 7), dialler(origin, names, tls))


def dialler(origin: Origin, names: Names | None = None, tls: ssl.SSLContext | None = None) -> Dialler:
    return Dialler(names or Names(), tls or trusting(), only(origin.port))


def context(deadline_s: float = 30) -> RequestContext:
    return RequestContext("test", Deadline(asyncio.get_running_loop().time() + deadline_s, deadline_s))


# A certificate for HOST alone, signed by itself, valid from 2020 to 2120. The key opens nothing.
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgF9IPLhjMeGma8bDh
462Nm3nGf6wLHytnGYnS0udieJ6hRANCAARQwTiiBhHo/T2hnq4pr8RHEs/YG9fS
oy+C2CahckyKMakFvAJtgLQLJYwKPwVhq6frEbSLWKuEMbByP4jmONb/
-----END PRIVATE KEY-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBjDCCATKgAwIBAgIBATAKBggqhkjOPQQDAjAdMRswGQYDVQQDDBJpbWFnZXMu
ZXhhbXBsZS5vcmcwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMB0x
GzAZBgNVBAMMEmltYWdlcy5leGFtcGxlLm9yZzBZMBMGByqGSM49AgEGCCqGSM49
AwEHA0IABFDBOKIGEej9PaGerimvxEcSz9gb19KjL4LYJqFyTIoxqQW8Am2AtAsl
jAo/BWGrp+sRtItYq4QxsHI/iOY41v+jYTBfMB0GA1UdEQQWMBSCEmltYWdlcy5l
eGFtcGxlLm9yZzAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwIChDAdBgNV
HQ4EFgQUeDlw18sCF1uwo4uJLsEjsQU48TQwCgYIKoZIzj0EAwIDSAAwRQIgc7TX
VtD5qcG514Gg3nIB8r9x26/oESRxrfYJEvERluACIQCgo8GFmHljAUTvlooEqOj9
hcnINDiGoR5TIj0aqelfHA==
-----END CERTIFICATE-----
"""


@cache
def trusting() -> ssl.SSLContext:
    """A client's TLS that trusts that certificate."""
    found = ssl.create_default_context()
    found.load_verify_locations(cadata=CERTIFICATE)
    return found


def certified() -> ssl.SSLContext:
    """A server's TLS with that certificate."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # the library reads files only
        path = Path(folder) / "both.pem"
        path.write_text(KEY + CERTIFICATE)
        found.load_cert_chain(path)
    return found
