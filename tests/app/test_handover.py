"""Connections handed over: in turn, to those that are ready, and to nobody that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.handover import Handover, Order, Taker, listen, take
from tests.app.asgi import until


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    (made,) = listen("127.0.0.1", 0)
    with made:
        yield made


@contextlib.contextmanager
def takers(count: int, *, ready: bool = True) -> Iterator[list[tuple[Taker, socket.socket]]]:
    """Takers with the other ends of their channels, as a worker holds them."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            ours.setblocking(False)
            theirs.setblocking(False)
            made.append((Taker(ours, ready), theirs))
        yield made


def taken(channel: socket.socket) -> list[int]:
    """The client ports of the connections that wait in a channel."""
    ports = []
    with contextlib.suppress(BlockingIOError):
        while (connection := take(channel)) is not None:
            with connection:
                ports.append(connection.getpeername()[1])
    return ports


async def connect(listener: socket.socket, count: int) -> list[int]:
    """So many clients one after the other, accepted by now; their ports. They close when the test's loop ends."""
    ports = []
    for _ in range(count):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        ports.append(writer.get_extra_info("sockname")[1])
        writer.close()
        await asyncio.sleep(0.01)
    return ports


async def test_connections_go_in_turn(listener: socket.socket) -> None:
    handover = Handover([listener])
    with takers(3) as made:
        for taker, _ in made:
            handover.add(taker)
        ports = await connect(listener, 7)
        assert [taken(theirs) for _, theirs in made] == [ports[0::3], ports[1::3], ports[2::3]]
        handover.close()


async def test_what_waits_to_be_accepted_at_the_end_is_given_away(listener: socket.socket) -> None:
    handover = Handover([listener])
    with takers(2) as made:
        for taker, _ in made:
            handover.add(taker)
        with contextlib.ExitStack() as clients:
            connections = [clients.enter_context(socket.create_connection(listener.getsockname(), 10)) for _ in range(5)]
            handover.close()  # the loop had no turn since
            ports = [connection.getsockname()[1] for connection in connections]
            assert [taken(theirs) for _, theirs in made] == [ports[0::2], ports[1::2]]


async def test_those_that_load_get_some_only_while_nobody_is_ready(listener: socket.socket) -> None:
    handover = Handover([listener])
    with takers(2, ready=False) as made:
        (one, ones), (other, others) = made
        handover.add(one)
        handover.add(other)
        await connect(listener, 4)
        assert (len(taken(ones)), len(taken(others))) == (2, 2)
        other.ready = True
        await connect(listener, 4)
        assert (len(taken(ones)), len(taken(others))) == (0, 4)
        handover.close()


async def test_what_the_dead_cannot_take_goes_to_the_living(listener: socket.socket) -> None:
    handover = Handover([listener])
    with takers(2) as made:
        for taker, _ in made:
            handover.add(taker)
        made[0][1].close()
        ports = await connect(listener, 4)
        assert taken(made[1][1]) == ports
        handover.close()


async def test_a_taker_that_is_stuck_does_not_stop_the_others(listener: socket.socket) -> None:
    handover = Handover([listener])
    with takers(2) as made:
        for taker, _ in made:
            handover.add(taker)
        with contextlib.suppress(BlockingIOError):
            while True:
                made[0][0].channel.send(bytes(4096))  # its channel is full
        ports = await connect(listener, 4)
        assert taken(made[1][1]) == ports
        handover.close()


async def test_without_takers_connections_wait(listener: socket.socket) -> None:
    handover = Handover([listener])
    with takers(2) as ((one, ones), (other, others)):
        handover.add(one)
        handover.remove(one)
        handover.remove(one)
        ports = await connect(listener, 3)
        assert taken(ones) == []
        handover.add(other)
        got: list[int] = []

        def all_came() -> bool:
            got.extend(taken(others))
            return len(got) == len(ports)

        await until(all_came)
        assert got == ports
        handover.close()


async def test_closed_it_listens_no_more(listener: socket.socket) -> None:
    address = listener.getsockname()
    handover = Handover([listener])
    with takers(1) as ((taker, _),):
        handover.add(taker)
        handover.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5)


def test_a_starter_that_is_gone_is_told_apart_from_one_that_is_silent() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        with ours, pytest.raises(BlockingIOError):
            take(theirs)
        assert take(theirs) is None


def test_a_free_port_is_one_for_all_addresses_of_a_host() -> None:
    listeners = listen("localhost", 0)
    try:
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
    finally:
        for listener in listeners:
            listener.close()


def test_an_address_that_is_not_ours_cannot_be_listened_on() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EADDRNOTAVAIL)):
        listen("203.0.113.5", 0)  # of a block for documentation (RFC 5737)


def test_a_port_in_use_cannot_be_listened_on(listener: socket.socket) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        listen("127.0.0.1", listener.getsockname()[1])


def test_an_order_arrives_as_it_was_given(tmp_path: Path) -> None:
    order = Order(1, 7, str(tmp_path), {"port": "0", "labels_file": "a 'b' \"c\"\n"})
    assert Order.read(order.dump()) == order
