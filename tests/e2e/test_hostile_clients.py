"""Each hostile client gets what is documented, a good one beside it is served on, and afterwards nothing is left of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.hostile_clients import (
    ATTACKS,
    DEAF,
    GET,
    LIMITS,
    POST,
    Attack,
    attack,
    connect,
    good_client,
    head,
    length,
    many,
    read,
)
from tests.e2e.hostile_clients import statuses as statuses_of
from tests.e2e.server import Server, serve

pytestmark = pytest.mark.e2e

PATIENCE_S = 1.5  # that the good client may have to wait at most, on a busy machine; it takes some 10 ms on an idle one
CONNECTIONS = int(LIMITS["SKNET_MAX_CONNECTIONS"])
PART_OF_BODY = head(length(1000)) + b"x" * 10


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(**LIMITS) as running:
        yield running


def metric(server: Server, name: str, **labels: str) -> float:
    """The sum of a metric's series with these labels."""
    with server.client() as client:
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    return sum(s.value for family in families for s in family.samples if s.name == name and labels.items() <= s.labels.items())


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def resident_mib(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def wait_for(condition: Callable[[], bool], within_s: float = 10) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not within {within_s} s"
        time.sleep(0.02)


@pytest.mark.parametrize("one", ATTACKS, ids=lambda one: one.name)
def test_what_one_connection_can_do(server: Server, one: Attack) -> None:
    assert attack(server, one) == (one.statuses, one.closed)


def test_names_of_attacks_are_unique() -> None:
    assert len({one.name for one in ATTACKS}) == len(ATTACKS)


def test_all_of_them_at_once_beside_a_good_client_leave_nothing_behind(server: Server) -> None:
    wait_for(lambda: metric(server, "sknet_connections") == 1)  # the one that asks
    before, resident = descriptors(server), resident_mib(server)
    with good_client(server) as good, ExitStack() as stack:
        silent = stack.enter_context(many(server, 30))
        slow_heads = stack.enter_context(many(server, 30, b"GET /livez HTTP/1.1\r\nHost:"))
        slow_bodies = stack.enter_context(many(server, 30, PART_OF_BODY))
        deaf = stack.enter_context(many(server, 5))
        for connection in deaf:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(DEAF)
        for one in ATTACKS:
            assert attack(server, one)[0] == one.statuses, one.name
        for connection in (*slow_heads, *slow_bodies):  # a byte now and then renews nothing
            with suppress(ConnectionError):
                connection.sendall(b"x")
        assert {read(connection) for connection in (*silent, *slow_heads)} == {(b"", True)}
        assert {statuses_of(read(connection)[0]) for connection in slow_bodies} == {(408,)}
        wait_for(lambda: metric(server, "sknet_connections") <= 2)  # that asking, and the good client's; the deaf ones are cut
        for connection in deaf:
            _, ended = read(connection)
            assert ended
    assert good.faults == []
    assert len(good.seconds) > 20
    assert max(good.seconds) < PATIENCE_S
    wait_for(lambda: descriptors(server) <= before)
    assert metric(server, "sknet_queue_size") == 0
    assert resident_mib(server) < resident + 100


@pytest.mark.parametrize(
    ("waits", "first"),
    [("idle", b""), ("idle", b"GET /livez HTT"), ("body", PART_OF_BODY)],
    ids=["silent", "slow head", "slow body"],
)
def test_silent_connections_beyond_the_limit_give_way_to_new_ones(server: Server, waits: str, first: bytes) -> None:
    cut, all_cut = metric(server, "sknet_connections_cut_total", reason=waits), metric(server, "sknet_connections_cut_total")
    with good_client(server, fresh=1) as good:
        with many(server, 2 * CONNECTIONS, first):
            assert metric(server, "sknet_connections") <= CONNECTIONS
            assert metric(server, "sknet_connections_cut_total", reason=waits) > cut
            assert metric(server, "sknet_connections_cut_total") >= all_cut + CONNECTIONS // 2 - 5
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                with connect(server) as connection:
                    connection.sendall(GET)
                    assert statuses_of(read(connection, lambda got: got.endswith(b"}"))[0]) == (200,)
    assert good.faults == []
    assert max(good.seconds) < PATIENCE_S
    assert metric(server, "sknet_connections_cut_total", reason="refused") == 0


def test_a_client_that_left_frees_its_place_and_one_that_only_ended_its_side_is_answered(server: Server) -> None:
    abandoned = metric(server, "sknet_images_total", outcome="abandoned")
    with many(server, 60, POST):
        pass  # gone again before most of them could be answered
    wait_for(lambda: metric(server, "sknet_queue_size") == 0)
    assert metric(server, "sknet_images_total", outcome="abandoned") > abandoned
    with many(server, 30, POST) as connections:
        for connection in connections:
            connection.shutdown(socket.SHUT_WR)
        assert {statuses_of(read(connection)[0])[-1] for connection in connections} == {200}


def test_what_was_refused_is_counted(server: Server) -> None:
    before = metric(server, "sknet_rejected_total", reason="malformed-request")
    for _ in range(3):
        with connect(server) as connection:
            connection.sendall(b"\x16\x03\x01")
            answer, ended = read(connection)
            assert (statuses_of(answer), ended) == ((400,), True)
    assert metric(server, "sknet_rejected_total", reason="malformed-request") == before + 3


def test_a_body_that_trickles_holds_no_room(server: Server) -> None:
    started = time.monotonic()
    with connect(server) as connection, suppress(ConnectionError):
        connection.sendall(head(length(1000)))
        connection.settimeout(0.2)
        answer = b""
        while b"}" not in answer and time.monotonic() < started + 10:
            connection.sendall(b"x")
            with suppress(TimeoutError):
                answer += connection.recv(65_536)
    assert statuses_of(answer) == (408,)
    assert 1.5 < time.monotonic() - started < 8
