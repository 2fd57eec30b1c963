"""Starts `sknet serve` as a user would, on a free port of loopback, and stops it by its process id."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

START_S = 180  # importing torch and exporting a graph on a cold, busy machine of two cores


@dataclass
class Server:
    """A running service: its address and what it logged."""

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rsplit(":", 1)[1])

    def client(self, timeout_s: float = 30) -> httpx.Client:
        """A client that ignores the environment's proxies, and reads no certificates (20 ms): there is no TLS here."""
        return httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False, verify=False)

    def stop(self, number: int = signal.SIGTERM, within_s: float = 30) -> int:
        """Signal the process and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(within_s)

    def records(self) -> list[dict[str, object]]:
        """The log so far, parsed."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]


PROGRAM = ("app.cli",)


def command(*arguments: str, program: Sequence[str] = PROGRAM) -> list[str]:
    """The console script, run with this interpreter whether or not its folder is on PATH."""
    return [sys.executable, "-m", *program, *arguments]


def environment(**variables: str) -> dict[str, str]:
    """The environment without settings of whoever runs the tests, and of whoever traces them."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SKNET_", "OTEL_"))}
    return {**kept, "SKNET_LOG_FORMAT": "json", **variables}


@contextmanager
def serve(*arguments: str, wait: bool = True, program: Sequence[str] = PROGRAM, **variables: str) -> Iterator[Server]:
    """`sknet serve --port 0 ...`, ready; killed at the end if it is still there."""
    process = subprocess.Popen(
        command("serve", "--port", "0", *arguments, program=program),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**variables),
    )
    server = Server(process)
    reader = threading.Thread(target=_read, args=(server,), daemon=True)
    reader.start()
    try:
        _wait_for(lambda: bool(server.url) or process.poll() is not None, START_S, server)
        if wait:
            _wait_for(lambda: process.poll() is not None or _ready(server), START_S, server)
            if process.poll() is not None:
                raise AssertionError("the service ended at its start:\n" + "\n".join(server.lines))
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        reader.join(10)
        if process.stderr is not None:
            process.stderr.close()


def _read(server: Server) -> None:
    assert server.process.stderr is not None
    for line in server.process.stderr:
        server.lines.append(line.rstrip())
        found = re.search(r"running on (http://127\.0\.0\.1:\d+)", line)
        if found:
            server.url = found.group(1)


def _ready(server: Server) -> bool:
    try:
        with server.client(5) as client:
            return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _wait_for(condition: object, limit_s: float, server: Server) -> None:
    assert callable(condition)
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit_s} s:\n" + "\n".join(server.lines))
        time.sleep(0.05)
