"""The port of gRPC: opened with the service, in the same process and event loop, and closed as the port of HTTP is.

It knows no protocol beyond gRPC: which methods there are it is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import grpc
from grpc import aio

from app.descriptors import connection_limit, limit
from app.grpc_calls import READING
from app.settings import Settings

logger = logging.getLogger("sknet.service")

CONTROL = 64  # calls beside those that bring images: probes and metadata have room when nothing else has
STREAMS = 256  # calls at once on one connection; more of them wait in the client
IDLE_S = 300  # before an idle connection is closed
AGE_S = 3600  # before a connection is to be made anew, so that those of many clients spread over what serves


def options(settings: Settings) -> list[tuple[str, int]]:
    """What bounds connections and messages (grpc_types.h); pings have the library's own limits."""
    connections = connection_limit(settings.max_connections, limit())
    return [
        ("grpc.max_receive_message_length", settings.max_batch_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_header_bytes),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.max_connection_idle_ms", IDLE_S * 1000),
        ("grpc.max_connection_age_ms", AGE_S * 1000),
        ("grpc.server_handshake_timeout_ms", settings.keep_alive_s * 1000),
        ("grpc.so_reuseport", int(settings.workers > 1)),  # `app.grpc_port` holds the port for all workers
    ]


class GrpcServer:
    """One server, of services by name, each with its methods' handlers by name."""

    def __init__(self, settings: Settings, services: Mapping[str, Mapping[str, Any]]) -> None:
        self._settings = settings
        self._services = services
        self._server: Any = None

    async def start(self) -> None:
        """Take calls from now on.

        Raises:
            RuntimeError: the port cannot be opened; `app.grpc_port` looked before, and said why.
        """
        settings = self._settings
        most = settings.max_queue + 2 * READING + CONTROL
        server = aio.server(options=options(settings), maximum_concurrent_rpcs=most)
        server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(name, dict(methods)) for name, methods in self._services.items())
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        server.add_insecure_port(f"{host}:{settings.grpc_port}")
        await server.start()
        self._server = server
        logger.info("gRPC on %s:%d", host, settings.grpc_port)

    async def stop(self) -> None:
        """Take no more calls, and end when those that run are answered, or when their time is up."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(self._settings.drain_s)
