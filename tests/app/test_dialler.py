"""Connections: every answer of the resolver is checked, and what was checked is what is called. Real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import Any

import pytest

from app.dialler import Dialler, NotPublic, judge
from app.errors import SourceUnreachable
from app.fetch import trusted
from app.urls import parse
from tests.app.origin import HOST, Names, Origin, certified, dialler, ok, only, origin, trusting
from tests.ssrf import RESOLVED, Name


class Called(Exception):
    """A connection was tried."""


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects in this test's loop fails it."""

    async def refuse(*given: Any) -> None:
        raise Called(given)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", refuse)


@pytest.mark.usefixtures("no_connections")
@pytest.mark.parametrize("name", RESOLVED, ids=lambda name: name.host)
async def test_a_name_for_an_address_that_is_not_public(name: Name) -> None:
    names = Names({name.host: [name.addresses]})
    with pytest.raises(NotPublic, match=name.host):
        await Dialler(names, trusting()).open(parse(f"http://{name.host}/"))
    assert names.asked == [name.host]


@pytest.mark.usefixtures("no_connections")
async def test_a_public_address_would_be_called() -> None:
    """So that the tests above could fail."""
    with pytest.raises(Called, match=r"93\.184\.215\.14"):
        await Dialler(Names({HOST: [("93.184.215.14",)]}), trusting()).open(parse(f"http://{HOST}/"))


async def test_nothing_is_looked_up_between_check_and_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers with another address the second time is not asked a second time."""

    def looked_up(*_: Any, **__: Any) -> Any:
        raise AssertionError("resolved again")

    async with origin() as server:
        names = Names({HOST: [("127.0.0.1",), ("10.0.0.1",)]})
        monkeypatch.setattr(socket, "getaddrinfo", looked_up)
        _, writer = await dialler(server, names).open(parse(server.url()))
        assert writer.get_extra_info("peername") == ("127.0.0.1", server.port)
        writer.transport.abort()
        with pytest.raises(NotPublic, match=r"10\.0\.0\.1: private"):
            await dialler(server, names).open(parse(server.url()))
        assert names.asked == [HOST, HOST]


async def test_a_connection_that_ends_elsewhere_is_closed_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    real = asyncio.SelectorEventLoop.sock_connect

    async with origin() as wanted, origin() as other:

        async def astray(loop: asyncio.SelectorEventLoop, sock: socket.socket, address: Any) -> None:
            await real(loop, sock, ("127.0.0.1", other.port))

        monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", astray)
        with pytest.raises(NotPublic, match="turned out"):
            await dialler(wanted).open(parse(wanted.url()))
        await _settled(other)
        assert (wanted.connections, other.requests) == (0, [])


async def _settled(server: Origin) -> None:
    async with asyncio.timeout(5):
        while server.connections != 1 or server.left != 1:  # noqa: ASYNC110 - a server has no event for that
            await asyncio.sleep(0.001)


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    async with origin({"/": ok(b"x")}) as server:
        deaf = Names({HOST: [("127.0.0.2", "127.0.0.1")]})  # nobody listens on the first
        permissive = Dialler(deaf, trusting(), lambda address, port: None)
        _, writer = await permissive.open(parse(server.url()))
        assert writer.get_extra_info("peername") == ("127.0.0.1", server.port)
        writer.transport.abort()


async def test_an_address_that_swallows_packets_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    real = asyncio.SelectorEventLoop.sock_connect

    async def swallow(loop: asyncio.SelectorEventLoop, sock: socket.socket, address: Any) -> None:
        await (asyncio.sleep(30) if address[0] == "127.0.0.2" else real(loop, sock, address))

    monkeypatch.setattr("app.dialler.TRY_S", 0.05)
    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", swallow)
    async with origin() as server, asyncio.timeout(20):
        names = Names({HOST: [("127.0.0.2", "127.0.0.1")]})
        _, writer = await Dialler(names, trusting(), lambda address, port: None).open(parse(server.url()))
        assert writer.get_extra_info("peername") == ("127.0.0.1", server.port)
        writer.transport.abort()


async def test_the_next_address_is_tried_where_one_speaks_no_tls() -> None:
    async with origin(tls=certified()) as server:
        plain = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.2", server.port)
        async with plain:
            names = Names({HOST: [("127.0.0.2", "127.0.0.1")]})
            _, writer = await Dialler(names, trusting(), lambda address, port: None).open(parse(server.url(scheme="https")))
            assert writer.get_extra_info("peername") == ("127.0.0.1", server.port)
            writer.transport.abort()


async def test_nobody_answers() -> None:
    async with origin() as server:
        port = server.port
    with pytest.raises(SourceUnreachable, match="does not answer"):
        await Dialler(Names(), trusting(), only(port)).open(parse(f"http://{HOST}:{port}/"))


async def test_tls_for_the_name_at_the_checked_address() -> None:
    async with origin(tls=certified()) as server:
        _, writer = await dialler(server).open(parse(server.url(scheme="https")))
        assert writer.get_extra_info("ssl_object").server_hostname == HOST
        assert writer.get_extra_info("peername")[0] == "127.0.0.1"
        writer.transport.abort()


@pytest.mark.parametrize("host", ["other.example.org", "127.0.0.1"])
async def test_a_certificate_for_another_name(host: str) -> None:
    async with origin(tls=certified()) as server:
        names = Names({host: [("127.0.0.1",)]})
        with pytest.raises(SourceUnreachable, match="not valid for that name"):
            await dialler(server, names).open(parse(server.url(host=host, scheme="https")))
        assert server.requests == []


async def test_a_certificate_that_nobody_vouches_for() -> None:
    async with origin(tls=certified()) as server:
        with pytest.raises(SourceUnreachable, match="certificate"):
            await dialler(server, tls=trusted()).open(parse(server.url(scheme="https")))


async def test_a_server_without_tls() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ok(b"plain"))
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(SourceUnreachable, match="no TLS"):
            await Dialler(Names(), trusting(), only(port)).open(parse(f"https://{HOST}:{port}/"))


def test_the_judge_of_the_service_is_the_guard() -> None:
    assert judge(ip_address("127.0.0.1"), 80) == "loopback (RFC 1122)"
    assert judge(ip_address("1.1.1.1"), 1) is None
