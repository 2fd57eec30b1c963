"""The HTTP server process: uvicorn, told when to stop saying that it is ready."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from app import descriptors
from app.acceptor import Acceptor
from app.connections import Connections
from app.descriptors import connection_limit
from app.handover import listen
from app.protocol import BoundedHttpTools
from app.services import Services
from app.settings import Settings

logger = logging.getLogger("sknet.service")


class Server(uvicorn.Server):
    """Readiness goes with the signal, before the last accepted request is answered."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if sockets is not None or sys.platform == "win32":
            await super().startup(sockets)
            return
        await super().startup(sockets=[])
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
        self._app.state.services.classifier.drain()
        super().handle_exit(sig, frame)


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
    return kind(config, app)
