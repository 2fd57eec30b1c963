"""How the server ends: readiness first, then the port, then what was accepted. With real connections and no real model."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from app import hangup
from app.bench.client import Answer, Connection, get, post
from app.main import create_app
from app.server import Server, server_of
from app.settings import Settings
from tests.app.asgi import until
from tests.fakes import FakeModel

READY = get("x", "/readyz")
IMAGE = b"x"
CLASSIFY = post("x", "/classify", "image/png", len(IMAGE))


@dataclass
class Running:
    """A server in this loop."""

    server: Server
    port: int
    done: asyncio.Task[None]

    def connect(self) -> Connection:
        return Connection("127.0.0.1", self.port)

    async def ask(self, request: bytes = READY, body: bytes = b"") -> Answer:
        connection = self.connect()
        try:
            return await connection.ask(request, body)
        finally:
            connection.close()

    async def end(self) -> None:
        async with asyncio.timeout(10):
            await self.done


@asynccontextmanager
async def running(model: FakeModel | None = None, *, grace_s: float = 0.0, loads: bool = True) -> AsyncIterator[Running]:
    gate = threading.Event()

    def load(_: Settings) -> FakeModel:
        if not loads:
            gate.wait(10)
        return model or FakeModel()

    settings = Settings(port=0, keep_alive_s=60, drain_s=5)
    server = server_of(create_app(settings, load=load, on_failure=lambda error: pytest.fail(str(error))), settings)
    server.grace_s = grace_s
    # What `serve` does, but that it takes the signals of this process.
    done = asyncio.create_task(server._serve())
    try:
        await until(lambda: server.started)
        service = Running(server, server.servers[0].sockets[0].getsockname()[1], done)
        if loads:
            async with asyncio.timeout(5):
                while not (await service.ask()).ok:  # noqa: ASYNC110 - asked as a client asks
                    await asyncio.sleep(0.01)
        yield service
    finally:
        gate.set()
        server.should_exit = True
        await asyncio.gather(done, return_exceptions=True)
        hangup.let_through()


async def test_in_its_grace_it_says_no_and_serves_on() -> None:
    async with running(grace_s=0.6) as service:
        kept = service.connect()
        assert (await kept.ask(CLASSIFY, IMAGE)).headers.get("connection") is None
        started = time.monotonic()
        service.server.handle_exit(signal.SIGTERM, None)
        assert (await service.ask()).code == "503"
        for connection in (kept, service.connect()):  # one from before, and a new one
            answer = await connection.ask(CLASSIFY, IMAGE)
            assert (answer.code, answer.headers["connection"]) == ("200", "close")
        assert (await service.ask(get("x", "/livez"))).ok
        await service.end()
        assert time.monotonic() - started >= 0.6
        with pytest.raises(ConnectionRefusedError):
            await service.ask()


@pytest.mark.parametrize("numbers", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
async def test_ctrl_c_and_a_second_signal_end_it_without_grace(numbers: tuple[int, ...]) -> None:
    async with running(grace_s=60) as service:
        for number in numbers:
            service.server.handle_exit(number, None)
        await service.end()


async def test_a_hangup_as_it_ends_ends_nothing_else() -> None:
    async with running() as service:
        assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        service.server.handle_exit(signal.SIGINT, None)
        await service.end()
        assert signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ())  # as the loop goes, its default comes back


async def test_what_never_was_ready_has_nobody_to_be_gracious_to() -> None:
    async with running(grace_s=60, loads=False) as service:
        service.server.handle_exit(signal.SIGTERM, None)
        assert service.server.should_exit


async def test_requests_that_come_as_it_ends_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """On connections that wait to be accepted, and on idle ones; the loop has no turn between the last of them and the end."""
    async with running() as service:
        with contextlib.ExitStack() as stack:
            address = "127.0.0.1", service.port
            connections = [stack.enter_context(socket.create_connection(address, 10)) for _ in range(8)]
            await until(lambda: len(service.server.server_state.connections) >= 8)

            async def last_tick(_: int) -> bool:
                if len(connections) == 8:
                    connections.extend(stack.enter_context(socket.create_connection(address, 10)) for _ in range(8))
                    for connection in connections:
                        connection.sendall(CLASSIFY + IMAGE)
                        connection.setblocking(False)
                return True

            monkeypatch.setattr(service.server, "on_tick", last_tick)
            await until(lambda: len(connections) == 16)
            loop = asyncio.get_running_loop()
            answers = await asyncio.gather(*(loop.sock_recv(connection, 65_536) for connection in connections))
            assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 16
        await service.end()


async def test_what_was_accepted_is_finished_after_the_port_is_closed() -> None:
    model = FakeModel(gate=threading.Event())
    async with running(model, grace_s=0.1) as service:
        connection = service.connect()
        asked = asyncio.create_task(connection.ask(CLASSIFY, IMAGE))
        await until(model.entered.is_set)
        service.server.handle_exit(signal.SIGTERM, None)
        await until(lambda: not service.server.servers[0].sockets)
        assert not asked.done()
        assert model.gate is not None
        model.gate.set()
        answer = await asked
        assert (answer.code, answer.headers["connection"]) == ("200", "close")
        await service.end()
