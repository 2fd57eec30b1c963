"""Whether the port of gRPC can be opened: what it needs is installed, and no other program has it. Imports nothing of gRPC."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

from app.handover import listen
from app.settings import PREFIX, Settings, SettingsError

# What is asked for readiness there, again and again.
GRPC_PROBES = frozenset({"/grpc.health.v1.Health/Check"}) | {
    f"/inference.GRPCInferenceService/{name}" for name in ("ServerLive", "ServerReady")
}
_NEEDED = ("grpc", "google.protobuf")


def check_grpc(settings: Settings) -> None:
    """Raises:
    SettingsError: gRPC is wanted, and what it needs is not installed. None of it is imported.
    """
    if settings.grpc_port and not all(map(_is_there, _NEEDED)):
        raise SettingsError(f"{PREFIX}GRPC_PORT needs the extra that speaks gRPC: pip install 'sknet-serve[grpc]'")
    if settings.grpc_port and settings.grpc_port == settings.port:
        raise SettingsError(f"{PREFIX}GRPC_PORT is {settings.grpc_port}, which is {PREFIX}PORT: each needs a port of its own")


@contextmanager
def reserved(settings: Settings) -> Iterator[None]:
    """Hold the port, so that only processes of this service may open it, each for itself (SO_REUSEPORT, socket(7)).

    One process alone needs no such thing: for it this only looks whether the port is free.

    Raises:
        SettingsError: it is not; or there is no such address.
    """
    if not settings.grpc_port:
        yield
        return
    with ExitStack() as held:
        try:
            # Without the option first: with it, every other program of this user that has it would share the port.
            addresses = [listener.getsockname() for listener in _closed(listen(settings.host, settings.grpc_port))]
            if settings.workers > 1:
                for address in addresses:
                    held.enter_context(_kept(address))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise SettingsError(f"cannot listen on {settings.host}, port {settings.grpc_port} (gRPC): {why}") from None
        yield


def _closed(listeners: list[socket.socket]) -> Iterator[socket.socket]:
    for listener in listeners:
        yield listener
        listener.close()


def _kept(address: tuple[object, ...]) -> socket.socket:
    """Bound, and deaf: connections go to those that listen."""
    family = socket.AF_INET6 if len(address) > 2 else socket.AF_INET
    keeper = socket.socket(family, socket.SOCK_STREAM)
    try:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            keeper.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        keeper.bind(address)
    except OSError:
        keeper.close()
        raise
    return keeper


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package around it
        return False
