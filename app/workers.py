"""Several worker processes: starts them, hands them connections, starts again what dies, ends all of them together.

It never imports the application nor the model. It watches that processes live, not that they answer: that is what probes do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from app import hangup
from app.conductor import Conductor, Current, Member
from app.grpc_port import reserved
from app.handover import DRAIN, READY, Handover, Order, Taker, listen
from app.metrics import Shared, forget_gauges
from app.settings import Settings, SettingsError

logger = logging.getLogger("sknet.workers")

PROGRAM = (sys.executable, "-P", "-m", "app.process")  # -P: no `app` that happens to lie in the current folder
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0  # before a worker is started again: doubled each time
STEADY_S = 60.0  # a worker that lived that long did not die of its start
PATIENCE_S = 5.0  # beyond the time that requests have to finish, before a worker that does not end is killed


def supervise(settings: Settings, flags: Mapping[str, Any]) -> str | None:
    """Serve with several processes until a signal. Returns in one line what went wrong, if anything did.

    Args:
        settings: of the whole service. flags: what they were made of beside the environment; the workers read both again.
    """
    try:
        listeners = listen(settings.host, settings.port)
    except OSError as error:
        return f"cannot listen on {settings.host}, port {settings.port}: {error.strerror}"
    try:
        with reserved(settings), tempfile.TemporaryDirectory(prefix="sknet-") as folder:
            return asyncio.run(Supervisor(settings, flags, listeners, Path(folder)).run())
    except SettingsError as error:
        return str(error)


class Supervisor:
    """The workers of one service, each in its slot."""

    def __init__(
        self,
        settings: Settings,
        flags: Mapping[str, Any],
        listeners: Sequence[socket.socket],
        folder: Path,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._settings = settings
        self._flags = flags
        self._folder = folder
        self._program = program
        self._url = _url(settings.host, listeners[0].getsockname()[1])
        self._handover = Handover(listeners)
        self._conductor = Conductor()
        self._processes: dict[int, Process] = {}
        self._first_ready = asyncio.Event()  # or never will be: it ended
        self._stopping = asyncio.Event()
        self._draining = False
        self._failure: str | None = None

    async def run(self) -> str | None:
        """Until a signal, or a start that cannot work."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled, number)
        hangup.listen(self._conductor.reload)
        logger.info("running on %s with %d processes (Press CTRL+C to quit)", self._url, self._settings.workers)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(0))
            # One loads alone: what only the first start ever has to make, the others find made.
            await self._first_ready.wait()
            for slot in range(1, self._settings.workers):
                group.create_task(self._keep(slot))
        return self._failure

    def _signalled(self, number: int) -> None:
        if not (self._draining or self._stopping.is_set()):
            logger.info("shutting down")
            self._drain(self._settings.grace_s if number == signal.SIGTERM and self._first_ready.is_set() else 0)
        elif not self._stopping.is_set():  # the second one, within the grace
            self._stop()
        elif number == signal.SIGINT:
            self._send(signal.SIGINT)  # once more: they end without waiting for their requests

    def _drain(self, grace_s: float) -> None:
        """Serve on for a while, but say that it is not for long."""
        self._draining = True
        if not grace_s:
            self._stop()
            return
        self._send(DRAIN)
        asyncio.get_running_loop().call_later(grace_s, self._stop)

    def _stop(self) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._first_ready.set()
        self._handover.close()
        self._conductor.close()
        self._send(signal.SIGTERM)
        asyncio.get_running_loop().call_later(self._settings.drain_s + PATIENCE_S, self._kill)

    def _send(self, number: int) -> None:
        for process in self._processes.values():
            _signal(process, number)

    def _kill(self) -> None:
        self._failure = self._failure or "workers that did not end in time were killed"
        self._send(signal.SIGKILL)

    def _end(self, process: Process, taker: Taker, gently: bool) -> None:
        """End one of them, so that it is started again."""
        self._handover.remove(taker)
        if process.returncode is not None:
            return
        if gently:
            _signal(process, signal.SIGTERM)
            patience_s = self._settings.drain_s + PATIENCE_S
            asyncio.get_running_loop().call_later(patience_s, self._end, process, taker, False)
        else:
            _signal(process, signal.SIGKILL)

    async def _keep(self, slot: int) -> None:
        """Have a worker in a slot until all are to end."""
        deaths, served = 0, False
        while not (self._draining or self._stopping.is_set()):
            started = time.monotonic()
            ready, reason = await self._run(slot)
            if self._draining or self._stopping.is_set():  # no other one for the short rest
                return
            served = served or ready
            if not served:
                self._failure = reason
                self._stop()
                return
            deaths = 1 if time.monotonic() - started > STEADY_S else deaths + 1
            delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (deaths - 1))
            logger.error("worker %d: %s; it is started again in %.1f s", slot, reason, delay_s)
            try:
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def _run(self, slot: int) -> tuple[bool, str]:
        """One worker from its start to its end: whether it ever was ready, and in words why it ended."""
        try:
            ours, control, process, current = await self._spawn(slot)
        except OSError as error:  # no memory, processes or file descriptors left: another time there may be
            return False, f"it cannot be started: {error.strerror}"
        with ours, control:
            self._processes[slot] = process
            taker = Taker(ours)
            end = partial(self._end, process, taker)
            member, listening = self._conductor.join(slot, control, current, end)
            if self._stopping.is_set():  # since it was asked for: nothing listens any more
                _signal(process, signal.SIGTERM)
            else:
                self._handover.add(taker)
                if self._draining:  # likewise, and it waits until the worker listens
                    _signal(process, DRAIN)
            try:
                said = await self._hear(taker, member)
                returned = await process.wait()
            finally:
                self._handover.remove(taker)
                self._conductor.part(member)
                if process.returncode is None:
                    _signal(process, signal.SIGKILL)
                    await process.wait()
                forget_gauges(Shared(self._folder, slot))
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
        return taker.ready, said or f"process {process.pid} ended {_in_words(returned)}"

    async def _spawn(self, slot: int) -> tuple[socket.socket, socket.socket, Process, Current]:
        """A new worker, this end of both channels to it, and what it was told to serve.

        Raises OSError where the system has no room for one.
        """
        with ExitStack() as both, ExitStack() as failed:
            pairs = []
            for _ in range(2):
                ours, theirs = socket.socketpair()
                failed.enter_context(ours).setblocking(False)
                pairs.append((ours, both.enter_context(theirs)))
            (ours, theirs), (control, their_control) = pairs
            now, ends = self._conductor.current, (theirs.fileno(), their_control.fileno())
            order = Order(slot, ends[0], str(self._folder), dict(self._flags), ends[1], now.checkpoint, now.loaded)
            hangup.hold_back(DRAIN)  # until the worker listens: neither must end it at its start
            try:
                # In a process group of its own, so that Ctrl+C comes from here, once it can be dealt with.
                process = await create_subprocess_exec(
                    *self._program, order.dump(), stdin=DEVNULL, pass_fds=ends, process_group=0
                )
            finally:
                hangup.let_through(DRAIN)
            failed.pop_all()
        return ours, control, process, now

    async def _hear(self, taker: Taker, member: Member) -> str:
        """Until the worker closes its end of the channel. What it said, but that it is ready."""
        said = b""
        try:
            while data := await asyncio.get_running_loop().sock_recv(taker.channel, 65_536):
                said += data
                if not taker.ready and said.startswith(READY):
                    follows = await self._conductor.ready(member)
                    taker.ready, said = True, said.removeprefix(READY)
                    if follows:
                        self._first_ready.set()
                        logger.info("worker %d is ready", member.slot)
        except ConnectionResetError:
            pass  # it ended with connections in the channel
        return said.decode(errors="replace")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _signal(process: Process, number: int) -> None:
    """Unless it ended. `Process.send_signal` may wait for it before asyncio does, and how it ended would be lost."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _in_words(returned: int) -> str:
    return f"with status {returned}" if returned >= 0 else f"by signal {-returned}"
