"""SIGTERM under load, with a grace: readiness goes first, no request is lost, the exit status is 0."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from app.bench.client import Connection, get, post
from tests.e2e.bad_inputs import jpeg
from tests.e2e.server import Server, serve

pytestmark = pytest.mark.e2e

GRACE_S = 1.0
CLIENTS = 6


class Client:
    """Asks again and again: on one connection until it is told that this one closes, then once more on another one."""

    def __init__(self, port: int, data: bytes) -> None:
        self._port = port
        self._request = post("x", "/classify", "image/jpeg", len(data)), data
        self.answers: Counter[str] = Counter()
        self.told = 0

    async def run(self) -> None:
        while self.told < 2:
            connection = Connection("127.0.0.1", self._port)
            closes = False
            while not closes:
                answer = await connection.ask(*self._request)
                self.answers[answer.code] += 1
                closes = answer.headers.get("connection") == "close"
            self.told += 1


async def end_under_load(server: Server) -> tuple[list[Client], list[str]]:
    """Each client's answers, and what `/readyz` said meanwhile."""
    port, data = int(server.url.rsplit(":", 1)[1]), jpeg()
    clients = [Client(port, data) for _ in range(CLIENTS)]
    said: list[str] = []
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run())
        while sum(client.answers["200"] for client in clients) < 3 * CLIENTS:  # noqa: ASYNC110 - the load has no event of its own
            await asyncio.sleep(0.02)
        server.process.terminate()
        while sum(client.told for client in clients) < CLIENTS:
            connection = Connection("127.0.0.1", port)
            said.append((await connection.ask(get("x", "/readyz"))).code)
            connection.close()
            await asyncio.sleep(0.02)
    return clients, said


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_loses_no_request(workers: int) -> None:
    with serve("--workers", str(workers), "--grace-s", str(GRACE_S)) as server:
        clients, said = asyncio.run(end_under_load(server))
        ended = time.monotonic()
        assert {code for client in clients for code in client.answers} == {"200"}
        assert [client.told for client in clients] == [2] * CLIENTS  # the second one connected within the grace
        assert "503" in said
        assert "200" not in said[said.index("503") :]  # with several workers: of none of them
        assert server.process.wait(30) == 0
        assert time.monotonic() - ended < GRACE_S + 10
