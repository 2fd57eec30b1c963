"""One serving process: the application in its server, until it is told to end.

As a program (`python -m app.process ORDER`) it is one worker of several: its connections come over a channel from the process
that started it, and when that process is gone it finishes what it has and ends. It knows of no other worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from app import hangup
from app.descriptors import raise_limit
from app.handover import DRAIN, READY, Order, take
from app.logs import configure, last_word
from app.main import create_app
from app.metrics import Metrics, Shared
from app.server import Server, server_of
from app.settings import PREFIX, Settings, SettingsError, load_settings, share_metrics
from app.swaps import Swaps
from app.threads import left_behind
from model.device import cpu_limit
from model.errors import ModelError

logger = logging.getLogger("sknet.workers")

HURRIED_S = 2.0  # from the second Ctrl+C to the end, whatever still runs


class Worker(Server):
    """A server that takes its connections from a channel instead of listening.

    `DRAIN` tells it to say that it is not ready any more: the grace before the end is its starter's, which has the port.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, channel: socket.socket) -> None:
        super().__init__(config, app)
        self._channel = channel
        self._opening: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        asyncio.get_running_loop().add_reader(self._channel, self._take)
        asyncio.get_running_loop().add_signal_handler(DRAIN, self.drain)
        hangup.let_through(DRAIN)  # its starter held it back

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().remove_reader(self._channel)
        # From here on whoever hands over sees that nobody takes, and gives to the next; what it gave before is served.
        try:
            self._channel.shutdown(socket.SHUT_RD)
            while (connection := take(self._channel)) is not None:
                self._open(connection)
        except OSError as error:
            logger.error("a connection was lost: %s", error.strerror)
        if self._opening:
            await asyncio.wait(self._opening)
        await super().shutdown(sockets=[])
        hangup.hold_back(DRAIN)

    def _take(self) -> None:
        try:
            connection = take(self._channel)
        except BlockingIOError:
            return
        except OSError as error:
            logger.error("a connection was lost: %s", error.strerror)
            return
        if connection is None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self.handle_exit(signal.SIGTERM, None)
            return
        self._open(connection)

    def _open(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        opening = loop.create_task(loop.connect_accepted_socket(self.protocol, connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)


def serve(settings: Settings, order: Order | None = None) -> str | None:
    """Serve until a signal, or as a worker. The reason in one line if the model could not be loaded."""
    failures: list[Exception] = []
    raise_limit()

    def give_up(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    if order is None:
        server = server_of(create_app(settings, on_failure=give_up), settings)
        server.grace_s = settings.grace_s
    else:
        channel = socket.socket(fileno=order.channel)
        channel.setblocking(False)
        channel.set_inheritable(False)  # a program that this one runs must not keep it open
        metrics = Metrics(Shared(Path(order.metrics), order.slot))
        swaps = partial(Swaps, control=_control(order), reference=order.checkpoint, loaded=order.loaded)
        app = create_app(settings, on_failure=give_up, on_ready=lambda: channel.sendall(READY), metrics=metrics, swaps=swaps)
        server = server_of(app, settings, lambda config, app: Worker(config, app, channel))

    def end(*_: object) -> None:
        server.should_exit = True

    server.hurried = _leave_soon
    # The server drains on these signals and then raises them again; a stop that was asked for is not a failure. One that comes
    # before the server listens to signals itself must not be lost.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    status = 0
    try:
        server.run()
    except SystemExit as ended:  # it could not listen, and has said why
        status = ended.code if isinstance(ended.code, int) else 1
    reason = _reason(failures)
    if reason is not None and order is not None:
        channel.sendall(reason.encode())
    if left_behind():
        # It is inside native code, which aborts when the interpreter is taken away from it, or which the end would wait for.
        if reason is not None and order is None:
            last_word(f"Error: {reason}")  # as the command line would
        logging.shutdown()
        os._exit(1 if reason else status)
    if status:
        sys.exit(status)
    return reason


def _leave_soon() -> None:
    """End the process in a while, though a call of the engine may never come back, and all else waits for it."""

    def leave() -> None:
        time.sleep(HURRIED_S)
        logger.error("ended without waiting for what still runs")
        logging.shutdown()
        os._exit(1)

    threading.Thread(target=leave, name="leave", daemon=True).start()


def _reason(failures: Sequence[Exception]) -> str | None:
    if not failures:
        return None
    told = isinstance(failures[0], ModelError | SettingsError)
    return str(failures[0]) if told else "the model could not be loaded; the log has the reason"


def _control(order: Order) -> socket.socket | None:
    if order.control is None:
        return None
    control = socket.socket(fileno=order.control)
    control.setblocking(False)
    control.set_inheritable(False)
    return control


def share_of(settings: Settings, cpus: int) -> Settings:
    """One worker's part of what the settings give to the whole service, with `cpus` processors for all of them.

    Threads that were asked for are each engine's own. No part is too small for one request that the settings allow.
    """

    def part(whole: int) -> int:
        return -(-whole // settings.workers)

    return settings.model_copy(
        update={
            "threads": settings.threads or max(1, cpus // settings.workers),
            "max_queue": max(part(settings.max_queue), min(settings.max_queue, settings.max_images)),
            "max_buffered_bytes": max(part(settings.max_buffered_bytes), settings.max_body_bytes, settings.max_batch_body_bytes),
            "result_cache": part(settings.result_cache),
            "rate_limit": settings.rate_limit / settings.workers,
            "rate_burst": part(settings.rate_burst),
        }
    )


def warn_of_sums(whole: Settings, part: Settings) -> None:
    """Log each limit that the workers together exceed, because no part of it may be smaller than one request needs."""
    for name in ("max_queue", "max_buffered_bytes"):
        each, limit = getattr(part, name), getattr(whole, name)
        # Rounding up gives each worker one more at most, which is no news.
        if each > -(-limit // whole.workers):
            logger.warning(
                "%s is %d, but each of %d workers has room for one request: %d together",
                PREFIX + name.upper(), limit, whole.workers, whole.workers * each,
            )  # fmt: skip


def main() -> None:
    """Be the worker that the one argument orders."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    order = Order.read(sys.argv[1])
    settings = load_settings(order.flags)
    share_metrics(Path(order.metrics))
    configure(settings.log_format, settings.log_level, worker=order.slot)
    part = share_of(settings, cpu_limit()[0])
    if order.slot == 0:  # once is enough
        warn_of_sums(settings, part)
    try:
        sys.exit(1 if serve(part, order) else 0)
    except SettingsError as error:  # since the service started: another try may find the file of keys mended
        logger.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
