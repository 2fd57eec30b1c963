"""The HTTP server process: uvicorn, told when to stop saying that it is ready, and when to load its checkpoint once more."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app import hangup
from app.protocol import BoundedHttpTools
from app.settings import Settings


class Server(uvicorn.Server):
    """Readiness goes with the signal, before the last accepted request is answered."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        hangup.listen(lambda: self._app.state.services.swaps.reload())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.state.services.classifier.drain()
        super().handle_exit(sig, frame)


def server_of(app: FastAPI, settings: Settings, kind: Callable[[uvicorn.Config, FastAPI], Server] = Server) -> Server:
    """A server for this application, on the address and with the patience of the settings."""
    config = uvicorn.Config(
        app,
        http=BoundedHttpTools,
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
