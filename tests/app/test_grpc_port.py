"""What is looked at before the port of gRPC is opened: the extra, and whether another program has the port."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from app import grpc_port
from app.grpc_port import check_grpc, reserved
from app.main import create_app
from app.settings import Settings, SettingsError
from tests.app.calling import free_port


def listening(port: int, *, shared: bool) -> socket.socket:
    listener = socket.socket()
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        if name == "google.protobuf":
            raise ModuleNotFoundError(name)
        return None

    monkeypatch.setattr(grpc_port, "find_spec", missing)
    check_grpc(Settings())
    for fails in (check_grpc, create_app):
        with pytest.raises(SettingsError, match=r"^SKNET_GRPC_PORT needs .* pip install 'sknet-serve\[grpc\]'$"):
            fails(Settings(grpc_port=8001))


def test_it_is_another_port_than_that_of_http() -> None:
    with pytest.raises(SettingsError, match="SKNET_GRPC_PORT is 8000, which is SKNET_PORT"):
        check_grpc(Settings(grpc_port=8000))


def test_off_nothing_is_reserved() -> None:
    with reserved(Settings()):
        pass


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_of_another_program_is_not_shared(workers: int, shared: bool) -> None:
    port = free_port()
    with listening(port, shared=shared):
        with (
            pytest.raises(SettingsError, match=rf"port {port} \(gRPC\): address already in use"),
            reserved(Settings(grpc_port=port, workers=workers)),
        ):
            pass


def test_workers_share_what_is_reserved_and_nobody_else() -> None:
    port = free_port()
    with reserved(Settings(grpc_port=port, workers=2)):
        with pytest.raises(OSError, match="in use"):
            listening(port, shared=False)
        with listening(port, shared=True), listening(port, shared=True), socket.create_connection(("127.0.0.1", port), 5):
            pass
        with socket.socket() as client:  # what is reserved does not listen
            assert client.connect_ex(("127.0.0.1", port)) != 0
    with listening(port, shared=False):
        pass


def test_there_must_be_such_an_address() -> None:
    with (
        pytest.raises(SettingsError, match="cannot listen on 192"),
        reserved(Settings(host="192.0.2.1", grpc_port=8001)),
    ):
        pass
