"""The HTTP server process: uvicorn, told when to stop saying that it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from app import descriptors
from app.connections import Connections
from app.descriptors import connection_limit
from app.protocol import BoundedHttpTools
from app.services import Services
from app.settings import Settings


class Server(uvicorn.Server):
    """Readiness goes with the signal, before the last accepted request is answered."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

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
