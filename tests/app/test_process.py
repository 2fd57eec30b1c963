"""One serving process: its part of the limits. That it serves is tested with real ones, in tests/e2e."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app import hangup, process
from app.connections import Connections
from app.handover import DRAIN, Order, listen
from app.metrics import Metrics
from app.process import Worker, serve, share_of, warn_of_sums
from app.protocol import BoundedHttpTools
from app.settings import Settings
from app.workers import PROGRAM
from tests.e2e.server import command, environment


@pytest.mark.parametrize(("cpus", "workers", "threads"), [(8, 2, 4), (7, 2, 3), (2, 4, 1), (16, 3, 5)])
def test_processors_are_divided(cpus: int, workers: int, threads: int) -> None:
    assert share_of(Settings(workers=workers), cpus).threads == threads


def test_threads_that_were_asked_for_are_each_ones_own() -> None:
    assert share_of(Settings(workers=2, threads=6), 4).threads == 6


def test_limits_of_the_service_are_divided() -> None:
    whole = Settings(
        workers=4, max_queue=1001, max_buffered_bytes=800_000_000, result_cache=10, max_images=8, rate_limit=10, rate_burst=6
    )
    part = share_of(whole, 4)
    assert (part.rate_limit, part.rate_burst) == (2.5, 2)
    assert (part.max_queue, part.max_buffered_bytes, part.result_cache) == (251, 200_000_000, 3)
    kept = set(Settings.model_fields) - {"threads", "max_queue", "max_buffered_bytes", "result_cache", "rate_limit", "rate_burst"}
    assert {name: getattr(part, name) for name in kept} == {name: getattr(whole, name) for name in kept}


def test_no_part_is_too_small_for_one_request() -> None:
    part = share_of(Settings(workers=200), 2)
    assert part.max_queue == part.max_images == 32
    assert part.max_buffered_bytes == part.max_batch_body_bytes
    assert share_of(Settings(workers=2, max_queue=3), 2).max_queue == 3  # nor larger than the whole
    assert part.result_cache == 0


def test_the_starter_of_workers_imports_neither_the_application_nor_the_model() -> None:
    code = "import sys, app.cli, app.workers; print(sorted({'fastapi', 'uvicorn', 'numpy', 'torch', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_sums_beyond_the_limits_are_told(caplog: pytest.LogCaptureFixture) -> None:
    for workers in (2, 4):
        whole = Settings(workers=workers, max_queue=255)
        warn_of_sums(whole, share_of(whole, 4))
    assert caplog.messages == []
    whole = Settings(workers=16)
    warn_of_sums(whole, share_of(whole, 16))
    assert caplog.messages == [
        "SKNET_MAX_QUEUE is 256, but each of 16 workers has room for one request: 512 together",
        "SKNET_MAX_BUFFERED_BYTES is 400000000, but each of 16 workers has room for one request: 1600000000 together",
    ]


# the end


class Stub:
    """A server that does one thing when it runs."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.should_exit = False
        self.hurried: Callable[[], None] = lambda: None
        self.run = run


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], None]], Stub]]:
    """Puts a stub in the place of the server; the signals are given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def put(run: Callable[[], None]) -> Stub:
        made = Stub(run)
        monkeypatch.setattr(process, "server_of", lambda *_: made)
        return made

    yield put
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_server_listens_to_any_is_not_lost(stub: Callable[..., Stub], number: int) -> None:
    server = stub(lambda: os.kill(os.getpid(), number))
    assert serve(Settings()) is None
    assert server.should_exit


def fail() -> None:
    sys.exit(3)


def test_a_server_that_cannot_listen_gives_the_status(stub: Callable[..., Stub]) -> None:
    stub(fail)
    with pytest.raises(SystemExit) as ended:
        serve(Settings())
    assert ended.value.code == 3


def test_a_load_that_still_runs_then_is_not_cut_off_by_the_interpreter(
    stub: Callable[..., Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(status: int) -> None:
        raise RuntimeError(f"left with {status}")

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    stub(fail)
    gate = threading.Event()
    load = threading.Thread(target=gate.wait, name="load", daemon=True)
    load.start()
    try:
        with pytest.raises(RuntimeError, match="left with 3"):
            serve(Settings())
    finally:
        gate.set()
        load.join()


def test_a_port_in_use_is_one_line_and_a_status() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            command("serve", "--port", str(port)), capture_output=True, text=True, check=False, timeout=90, env=environment()
        )
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("address already in use") == 1
    assert "Traceback" not in done.stderr


def test_a_worker_without_usable_keys_says_so_in_one_line(tmp_path: Path) -> None:
    """Its file was good when the service started, and is not when this one is started again."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        order = Order(1, theirs.fileno(), str(tmp_path), {"api_keys_file": str(tmp_path / "gone")})
        done = subprocess.run(
            [*PROGRAM, order.dump()], pass_fds=[theirs.fileno()],
            capture_output=True, text=True, check=False, timeout=60, env=environment(),
        )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"SKNET_API_KEYS_FILE ({tmp_path / 'gone'}) cannot be read" in line


async def test_a_worker_that_ends_serves_what_waits_and_gets_no_more() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("served")(scope, receive, send)

    made: Any = partial(BoundedHttpTools, settings=Settings(), open_connections=Connections(10, Metrics()))
    config = uvicorn.Config(app, http=made, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    unused: Any = None  # told of signals only
    (listener,) = listen("127.0.0.1", 0)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with listener, ours, theirs, socket.create_connection(listener.getsockname(), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        worker = Worker(config, unused, theirs)
        worker.lifespan = config.lifespan_class(config)
        await worker.startup()
        listener.setblocking(True)
        connection, _ = listener.accept()
        with connection:
            socket.send_fds(ours, [b"\0"], [connection.fileno()])  # the loop has no turn before the worker ends
            await worker.shutdown()
            assert {signal.SIGHUP, DRAIN} <= signal.pthread_sigmask(signal.SIG_BLOCK, ())  # none ends it from here on
            hangup.let_through(DRAIN)
            with pytest.raises(BrokenPipeError):
                socket.send_fds(ours, [b"\0"], [connection.fileno()])
        answer = b""
        while data := client.recv(65_536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"served")
