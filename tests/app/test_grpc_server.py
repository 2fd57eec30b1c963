"""The port: open with the service, closed as it ends, with what runs finished."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import pytest
from grpc import aio

from app.grpc_server import options
from app.main import create_app
from app.settings import Settings, SettingsError
from tests.app.asgi import until
from tests.app.calling import UNAVAILABLE, calling, free_port, images, refusal_of
from tests.fakes import FakeModel


async def test_what_runs_is_finished_and_nothing_new_is_taken() -> None:
    model = FakeModel(gate=threading.Event())
    async with calling(model) as service:
        call = service.begin("ModelInfer", images(b"\1"))
        await until(model.entered.is_set)
        service.service.app.state.grpc.close()
        async with aio.insecure_channel(f"127.0.0.1:{service.port}") as other:
            late = other.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=5)
            assert (await refusal_of(late)).code == UNAVAILABLE
        assert not call.done()
        assert model.gate is not None
        model.gate.set()
        assert await call
        async with asyncio.timeout(5):
            await service.service.app.state.grpc.stop()


async def test_what_does_not_end_in_time_is_ended() -> None:
    model = FakeModel(gate=threading.Event())
    async with calling(model, drain_s=0) as service:
        call = service.begin("ModelInfer", images(b"\1"))
        await until(model.entered.is_set)
        async with asyncio.timeout(5):
            await service.service.app.state.grpc.stop()
        assert (await refusal_of(call)).code in (UNAVAILABLE, "CANCELLED")


async def test_not_ready_while_the_model_loads() -> None:
    loaded, port = threading.Event(), free_port()

    def load(_: Settings) -> FakeModel:
        assert loaded.wait(10)
        return FakeModel()

    failures: list[Exception] = []
    app = create_app(Settings(grpc_port=port), load=load, on_failure=failures.append)
    async with app.router.lifespan_context(app), aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
        assert await ask(b"", wait_for_ready=True, timeout=5) == b""
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        assert (await refusal_of(infer(images(b"\1").SerializeToString()))).code == UNAVAILABLE
        loaded.set()
        await until(lambda: not app.state.services.classifier.reasons)
        assert await ask(b"") == b"\x08\x01"
    assert failures == []


async def test_one_of_several_takes_calls_once_it_serves() -> None:
    loaded, port = threading.Event(), free_port()

    def load(_: Settings) -> FakeModel:
        assert loaded.wait(10)
        return FakeModel()

    app = create_app(Settings(grpc_port=port, workers=2), load=load, on_failure=lambda error: None)
    async with app.router.lifespan_context(app):
        await asyncio.sleep(0.05)
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
        loaded.set()
        await until(lambda: not app.state.services.classifier.reasons)
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
            assert await ask(b"", wait_for_ready=True, timeout=5) == b"\x08\x01"


async def test_a_port_that_is_taken_ends_the_start() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        app = create_app(Settings(grpc_port=port), load=lambda _: FakeModel())
        with pytest.raises(SettingsError, match=rf"^cannot listen on 127.0.0.1, port {port} \(gRPC\): address already in use$"):
            async with app.router.lifespan_context(app):
                pass


def test_without_the_port_nothing_of_it_is_made() -> None:
    assert create_app(Settings(), load=lambda _: FakeModel()).state.grpc is None


def test_the_limits_are_those_of_the_settings() -> None:
    given = dict(options(Settings(max_batch_body_bytes=1234, max_connections=77, keep_alive_s=9, max_header_bytes=4096)))
    assert given["grpc.max_receive_message_length"] == 1234
    assert given["grpc.max_allowed_incoming_connections"] == 77
    assert given["grpc.server_handshake_timeout_ms"] == 9000
    assert given["grpc.absolute_max_metadata_size"] == 4096
    assert given["grpc.so_reuseport"] == 0
    assert dict(options(Settings(workers=2)))["grpc.so_reuseport"] == 1


def test_connections_end_often_enough_for_replicas_that_were_added() -> None:
    """Names are looked up again when a connection ends; README and Service say when. Calls are finished."""
    given, root = dict(options(Settings())), Path(__file__).parents[2]
    assert given["grpc.max_connection_age_ms"] == 5 * 60 * 1000
    assert "grpc.max_connection_age_grace_ms" not in given  # endless
    assert "Connections are renewed after about five minutes" in (root / "README.md").read_text(encoding="utf-8")
    told = root / "deploy" / "kubernetes" / "components" / "grpc" / "kustomization.yaml"
    assert "when a connection ends, which it does after five minutes" in told.read_text(encoding="utf-8")
