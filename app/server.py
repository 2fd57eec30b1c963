"""The HTTP server process: uvicorn, told when to load its checkpoint once more, when to stop saying that it is ready, and how to
end without losing a request.

On SIGTERM readiness goes at once, and for `grace_s` seconds all else stays as it was: connections are accepted and requests are
answered, each with `Connection: close`, so that proxies notice and clients move on. Then the port is closed, and what was
accepted is finished. Ctrl+C brings no grace, since a person waits for it, and a second signal ends one.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from app import descriptors, hangup
from app.acceptor import Acceptor
from app.connections import Connections
from app.descriptors import connection_limit
from app.handover import listen
from app.protocol import BoundedHttpTools
from app.services import Services
from app.settings import Settings

SETTLE_S = 0.05  # for requests on connections taken at the very end to be read: without one, they are closed as idle
TURNS = 3  # of the event loop: in one of them it sees what has come up to now
logger = logging.getLogger("sknet.service")


class Server(uvicorn.Server):
    """Readiness goes with the signal, the port after a while, the process when all is answered."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app
        self.grace_s = 0.0
        self.hurried: Callable[[], None] = lambda: None  # called in the loop when Ctrl+C comes once more
        self.closing: Callable[[], None] = lambda: None  # called in the loop when the port closes
        self._closes_at: float | None = None

    def drain(self) -> bool:
        """Say from now on that the service is shutting down; whether it was ready before."""
        classifier = self._app.state.services.classifier
        ready = not classifier.reasons
        classifier.drain()
        return ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if sockets is not None or sys.platform == "win32":
            await super().startup(sockets)
        else:
            await super().startup(sockets=[])
            await self._listen()
        hangup.listen(lambda: self._app.state.services.swaps.reload())

    async def _listen(self) -> None:
        try:
            listeners = listen(self.config.host, self.config.port)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            logger.error("cannot listen on %s, port %d: %s", self.config.host, self.config.port, why)
            await self.lifespan.shutdown()
            sys.exit(STARTUP_FAILURE)
        self.servers = [cast("asyncio.Server", Acceptor(listener, self.protocol)) for listener in listeners]
        self._log_started_message(listeners)

    def protocol(self) -> asyncio.Protocol:
        """One for a new connection."""
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.drain() and sig == signal.SIGTERM and self.grace_s and not self.should_exit:
            self._closes_at = time.monotonic() + self.grace_s  # uvicorn's own loop looks, ten times a second
        else:
            super().handle_exit(sig, frame)
            if self.force_exit:
                asyncio.get_running_loop().call_soon_threadsafe(self.hurried)

    async def on_tick(self, counter: int) -> bool:
        if self._closes_at is not None and time.monotonic() >= self._closes_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Closing a port refuses the connections that wait to be accepted, and closing a connection loses what was not read yet.
        self.closing()
        await _turns()
        for server in self.servers:
            server.close()
        await asyncio.sleep(SETTLE_S)
        await _turns()
        await super().shutdown(sockets)
        hangup.hold_back()  # whoever listens is about to go with the loop


async def _turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def server_of(app: FastAPI, settings: Settings, kind: Callable[[uvicorn.Config, FastAPI], Server] = Server) -> Server:
    """A server for this application, on the address and with the patience of the settings."""
    services: Services = app.state.services
    connections = Connections(connection_limit(settings.max_connections, descriptors.limit()), services.metrics)
    protocol = partial(BoundedHttpTools, settings=settings, open_connections=connections)
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", protocol),  # whatever makes one
        ws="none",
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.drain_s,
    )
    server = kind(config, app)
    if app.state.grpc is not None:  # which has as long to finish as HTTP, and not after it
        server.closing = app.state.grpc.close
    return server
