"""The port of gRPC: opened with the service, in the same process and event loop, and closed as the port of HTTP is.

It knows no protocol beyond gRPC: which methods there are it is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from grpc import aio

from app.descriptors import connection_limit, limit
from app.grpc_calls import Calls, Method
from app.grpc_port import reserved
from app.settings import Settings, SettingsError

logger = logging.getLogger("sknet.service")

CALLS = 10_000  # at once, beside images in the queue: `app.grpc_calls` refuses long before, each by what it waits for
STREAMS = 256  # calls at once on one connection; more of them wait in the client
IDLE_S = 300  # before an idle connection is closed
# Before a connection is to be made anew. Clients that share out their calls look the service's name up again only when a
# connection ends, so this is how long replicas that were added may get nothing. Calls under way are finished.
AGE_S = 300


def options(settings: Settings) -> list[tuple[str, int]]:
    """What bounds connections and messages (grpc_types.h); pings have the library's own limits."""
    connections = connection_limit(settings.max_connections, limit())
    return [
        ("grpc.max_receive_message_length", settings.max_batch_body_bytes),
        ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a few bytes would become a message as large as may be
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
    """One server. `calls` takes what comes; `methods` are by their path."""

    def __init__(self, settings: Settings, calls: Calls, methods: Sequence[Method]) -> None:
        self._settings = settings
        self._calls = calls
        self._methods = methods
        self._server: Any = None
        self._ending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take calls from now on, unless it does or was closed.

        Raises:
            SettingsError: it cannot listen.
        """
        if self._server is not None or self._ending is not None:
            return
        settings, host = self._settings, self._settings.host
        if settings.workers == 1:  # else whoever started this one holds the port for all
            with reserved(settings):
                pass
        most = settings.max_queue + CALLS
        server = aio.server(options=options(settings), maximum_concurrent_rpcs=most)
        server.add_generic_rpc_handlers((_Table({each.path: self._calls.handler(each) for each in self._methods}),))
        address = f"[{host}]:{settings.grpc_port}" if ":" in host else f"{host}:{settings.grpc_port}"
        try:
            server.add_insecure_port(address)
        except RuntimeError as error:
            raise SettingsError(f"cannot listen on {host}, port {settings.grpc_port} (gRPC): {error}") from None
        self._server = server
        await server.start()
        logger.info("gRPC is answered on %s", address)

    def close(self) -> None:
        """Take no more calls; those that run have `drain_s` seconds."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(), name="grpc")

    async def stop(self) -> None:
        """As `close`, and wait for the last call."""
        self.close()
        assert self._ending is not None
        await self._ending

    async def _end(self) -> None:
        if self._server is not None:
            await self._server.stop(self._settings.drain_s)


class _Table(grpc.GenericRpcHandler):  # type: ignore[misc]  # the library has no types
    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method; None where there is none, which is answered as UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)
