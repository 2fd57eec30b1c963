"""What every call passes: gate, limits, errors, deadlines, log and counts; as a request over HTTP does."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from app import grpc_calls
from app.logs import JsonFormatter
from app.stubs import oip_pb2 as pb
from tests.app.asgi import until
from tests.app.calling import Callee, calling, images, part, refusal_of
from tests.app.test_access import BOTH, KEYS, OPS, WEB, WRONG
from tests.app.tracing import SAMPLED, TRACE_ID, Memory, span_id, trace_id
from tests.fakes import SECRET, FakeModel

CHECK = "/grpc.health.v1.Health/Check"
INFER = "/inference.GRPCInferenceService/ModelInfer"


async def test_a_call_is_logged_and_counted_as_a_request(caplog: pytest.LogCaptureFixture) -> None:
    async with calling() as service:
        with caplog.at_level(logging.INFO, "sknet.access"):
            call = service.begin("ModelInfer", images(b"\1"), metadata=(("x-request-id", "mine"),))
            await call
            trailers = dict(await call.trailing_metadata())
            (record,) = caplog.records
        assert trailers["x-request-id"] == "mine"
        assert trailers["server-timing"].startswith("queue;dur=")
        line = json.loads(JsonFormatter().format(record))
        assert line["message"] == f"POST {INFER} 200"
        assert (line["request_id"], line["path"], line["status"], line["client"]) == ("mine", INFER, 200, "127.0.0.1")
        assert service.counted("ModelInfer", 200) == 1
        assert service.service.metric("sknet_images_total", outcome="classified") == 1
        assert service.service.metric("sknet_phase_duration_seconds_count", phase="inference") == 1


@pytest.mark.parametrize(
    ("data", "code", "status", "slug"),
    [
        (b"bad", "INVALID_ARGUMENT", 422, "image-undecodable"),
        (b"huge", "INVALID_ARGUMENT", 422, "image-too-large"),
        (b"bug", "INTERNAL", 500, "internal-error"),
        (b"poison", "INTERNAL", 500, "internal-error"),
    ],
)
async def test_errors_are_those_of_the_table(data: bytes, code: str, status: int, slug: str) -> None:
    async with calling() as service:
        refused = await service.refused("ModelInfer", images(data), metadata=(("x-request-id", "mine"),))
        assert refused.code == code
        assert refused.trailers["problem"] == f"/problems/{slug}"
        assert refused.trailers["x-request-id"] == "mine"
        assert SECRET not in refused.text
        assert service.counted("ModelInfer", status) == 1
        assert service.service.metric("sknet_rejected_total", reason=slug) == 1


async def test_what_is_no_message_is_refused() -> None:
    async with calling() as service:
        refused = await service.refused("ModelInfer", b"\xff\xff")
        assert (refused.code, refused.text) == ("INVALID_ARGUMENT", "the message is no inference.ModelInferRequest")
        refused = await service.refused("ModelReady", b"x" * 65_537)
        assert (refused.code, refused.trailers["problem"]) == ("INVALID_ARGUMENT", "/problems/body-too-large")


async def test_a_message_may_be_as_large_as_a_batch() -> None:
    async with calling(max_batch_body_bytes=100_000, max_body_bytes=50_000) as service:
        assert (await service.ask("ModelInfer", images(b"\1" * 45_000, b"\1" * 45_000))).model_name == "default"
        refused = await service.refused("ModelInfer", images(b"\1" * 50_001))
        assert refused.trailers["problem"] == "/problems/body-too-large"
        refused = await service.refused("ModelInfer", images(*[b"\1" * 50_000] * 3))
        assert (refused.code, "100000" in refused.text) == ("RESOURCE_EXHAUSTED", True)  # gRPC's own word
        assert len(service.service.model.prepared) == 2
        assert service.service.parts.room.used == 0


async def test_what_all_messages_may_hold_is_bounded() -> None:
    model = FakeModel(gate=threading.Event())
    async with calling(model, max_buffered_bytes=30_000, max_batch_body_bytes=20_000, max_body_bytes=20_000) as service:
        first = service.begin("ModelInfer", images(b"\1" * 19_000))
        await until(model.entered.is_set)
        assert service.service.parts.room.used > 19_000
        refused = await service.refused("ModelInfer", images(b"\1" * 19_000))
        assert (refused.code, refused.trailers["problem"]) == ("RESOURCE_EXHAUSTED", "/problems/overloaded")
        assert refused.trailers["retry-after"] == "1"
        assert refused.trailers["grpc-retry-pushback-ms"] == "1000"
        assert model.gate is not None
        model.gate.set()
        await first
        assert service.service.parts.room.used == 0


async def test_a_full_queue_refuses_before_the_message_is_read() -> None:
    model = FakeModel(gate=threading.Event())
    async with calling(model, max_queue=1) as service:
        first = service.begin("ModelInfer", images(b"\1"))
        await until(model.entered.is_set)
        refused = await refusal_of(service.silent())
        assert (refused.code, refused.trailers["problem"]) == ("RESOURCE_EXHAUSTED", "/problems/overloaded")
        assert int(refused.trailers["retry-after"]) >= 1
        assert (await service.ask("ServerLive", b"")).live  # the queue is not what a probe waits for
        assert model.gate is not None
        model.gate.set()
        await first


async def test_a_message_that_does_not_come_is_not_waited_for() -> None:
    async with calling(deadline_s=0.2) as service:
        refused = await refusal_of(service.silent())
        assert (refused.code, refused.trailers["problem"]) == ("DEADLINE_EXCEEDED", "/problems/body-timeout")
        assert service.counted("ModelInfer", 408) == 1


async def test_silent_calls_do_not_shut_out_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_calls, "PATIENCE_S", 0.1)
    async with calling() as service:
        for method, request in ((CHECK, b""), ("ModelInfer", images(b"\1"))):
            silent = [service.silent(method) for _ in range(grpc_calls.READING + 2)]
            await until(lambda method=method: arrived(service, method) >= grpc_calls.READING)
            async with asyncio.timeout(5):  # they may be silent for 10 s, of which 2 without images
                assert await service.ask(method, request)
            for call in silent:
                call.cancel()
            await asyncio.gather(*silent, return_exceptions=True)
        assert (await service.ask("ModelMetadata", pb.ModelMetadataRequest(name="default"))).name == "default"


def arrived(service: Callee, method: str) -> float:
    """Where this machine is slow, some have given way by the time that others come."""
    return waiting(service, method) + service.counted(method, 503) + service.counted(method, 408)


def waiting(service: Callee, method: str) -> int:
    turns = service.service.app.state.grpc._calls._turns[method == "ModelInfer"]
    return len(turns._held) + len(turns._waiting)


async def test_one_without_images_is_waited_for_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_calls, "SMALL_S", 0.1)
    async with calling() as service:
        refused = await refusal_of(service.silent(CHECK))
        assert (refused.code, refused.text) == ("DEADLINE_EXCEEDED", "the body did not arrive within 0.1 seconds")


async def test_however_many_are_silent_probes_are_answered() -> None:
    async with calling(max_queue=1) as service:
        silent = [service.silent(CHECK) for _ in range(150)]
        await until(lambda: service.counted(CHECK, 503) + service.counted(CHECK, 429) > 50)  # at once, by us
        assert (await service.ask("ServerLive", b"")).live
        assert (await service.ask("ServerReady", b"")).ready
        assert waiting(service, CHECK) <= grpc_calls.SMALL_READING + grpc_calls.SMALL_WAITING
        for call in silent:
            call.cancel()
        await asyncio.gather(*silent, return_exceptions=True)


@pytest.mark.parametrize("field", [4, 5, 6, 7])
async def test_a_message_of_very_many_parts_is_refused_before_it_is_read(field: int) -> None:
    async with calling() as service:
        refused = await service.refused("ModelInfer", part(1, b"default") + part(field, b"") * 20_000)
        assert (refused.code, refused.text) == ("INVALID_ARGUMENT", "the message has more than 1056 fields")
        assert service.service.parts.room.used == 0


async def test_a_message_of_very_many_numbers_is_refused_before_it_is_read() -> None:
    async with calling() as service:
        height, width = service.service.model.info.preprocess.size
        most = 32 * height * width * 3 + 16
        for field, width in ((6, 4), (4, 2)):
            data = part(5, part(1, b"input") + part(2, b"FP32") + part(5, part(field, b"\0" * (width * (most + 1)))))
            refused = await service.refused("ModelInfer", part(1, b"default") + data)
            assert (refused.code, refused.text.startswith(f"the message has more than {most} numbers")) == (
                "INVALID_ARGUMENT",
                True,
            )


@pytest.mark.parametrize("method", [CHECK, "ModelInfer"])
async def test_compressed_messages_are_not_taken(method: str) -> None:
    async with calling() as service:
        data = b"" if method == CHECK else images(b"\1").SerializeToString()
        refused = await service.refused(method, data + part(99, b"\0" * 10_000), compression=grpc.Compression.Gzip)
        assert (refused.code, refused.text) == ("UNIMPLEMENTED", "Compression algorithm 'gzip' is disabled.")


async def test_messages_that_arrive_have_as_much_room_as_those_that_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_calls, "PATIENCE_S", 60)
    limits: dict[str, Any] = {"max_body_bytes": 20_000, "max_batch_body_bytes": 20_000}
    async with calling(max_buffered_bytes=59_000, **limits) as service:
        silent = [service.silent() for _ in range(2)]
        await until(lambda: waiting(service, "ModelInfer") == 2)
        late = service.begin("ModelInfer", images(b"\1"))
        await until(lambda: waiting(service, "ModelInfer") == 3)
        assert not service.service.model.prepared
        silent[0].cancel()
        assert await late
        silent[1].cancel()


async def test_the_client_is_whom_a_trusted_proxy_names(caplog: pytest.LogCaptureFixture) -> None:
    async with calling(rate_limit=0.01, rate_burst=1) as service:
        with caplog.at_level(logging.INFO, "sknet.access"):
            for client in ("192.0.2.1", "192.0.2.2"):
                await service.ask("ModelInfer", images(b"\1"), metadata=(("x-forwarded-for", f"198.51.100.7, {client}"),))
            refused = await service.refused("ModelInfer", images(b"\1"), metadata=(("x-forwarded-for", "192.0.2.1"),))
        assert refused.trailers["problem"] == "/problems/rate-limited"
        clients = [json.loads(JsonFormatter().format(record))["client"] for record in caplog.records]
        assert clients == ["192.0.2.1", "192.0.2.2", "192.0.2.1"]


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("ipv4:192.0.2.1:80", ("192.0.2.1", 80)),
        ("ipv6:%5B2001:db8::1%5D:80", ("2001:db8::1", 80)),
        ("ipv4:192.0.2.1:²", None),
        ("unix:/somewhere", None),
    ],
)
def test_the_peer_as_the_client_of_a_request(peer: str, client: object) -> None:
    servicer = SimpleNamespace(peer=lambda: peer, invocation_metadata=lambda: None)
    method = grpc_calls.Method("/a/B", ("GET", "/"), pb.ServerLiveRequest, None)  # type: ignore[arg-type]  # it is not called
    assert grpc_calls._Call(method, servicer).scope()["client"] == client


async def test_no_proxy_is_trusted_that_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "192.0.2.9")
    async with calling(rate_limit=0.01, rate_burst=1) as service:
        await service.ask("ModelInfer", images(b"\1"), metadata=(("x-forwarded-for", "192.0.2.1"),))
        refused = await service.refused("ModelInfer", images(b"\1"), metadata=(("x-forwarded-for", "192.0.2.2"),))
        assert refused.trailers["problem"] == "/problems/rate-limited"


async def test_a_probe_waits_for_no_message() -> None:
    async with calling() as service:
        assert pb.ServerReadyResponse.FromString(await service.silent("ServerReady")).ready


async def test_the_deadline_of_the_settings() -> None:
    async with calling(FakeModel(gate=threading.Event()), deadline_s=0.2) as service:
        refused = await service.refused("ModelInfer", images(b"\1"))
        assert (refused.code, refused.trailers["problem"]) == ("DEADLINE_EXCEEDED", "/problems/deadline-passed")
        assert "0.2 seconds" in refused.text


async def test_the_deadline_of_the_client_ends_the_work() -> None:
    model = FakeModel(gate=threading.Event())
    async with calling(model) as service:
        first = service.begin("ModelInfer", images(b"\1"))
        await until(model.entered.is_set)
        refused = await service.refused("ModelInfer", images(b"\2"), timeout=0.2)
        assert refused.code == "DEADLINE_EXCEEDED"
        counted = service.service.metric
        await until(lambda: counted("sknet_images_total", outcome="late") + counted("sknet_images_total", outcome="abandoned"))
        assert model.gate is not None
        model.gate.set()
        await first
        assert [b"\2"] not in model.batches  # given up in the queue


async def test_a_call_that_is_called_off_ends_the_work() -> None:
    model = FakeModel(gate=threading.Event())
    async with calling(model) as service:
        call = service.begin("ModelInfer", images(b"\1"))
        await until(model.entered.is_set)
        call.cancel()
        await until(lambda: service.counted("ModelInfer", "left"))
        assert service.service.metric("sknet_images_total", outcome="abandoned") == 1
        assert service.service.parts.room.used == 0


async def test_keys_and_scopes() -> None:
    async with calling(api_keys=KEYS) as service:
        assert (await service.ask("ServerReady", b"")).ready
        assert await service.ask("/grpc.health.v1.Health/Check", b"") == b"\x08\x01"
        for method in ("ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer", "RepositoryIndex"):
            refused = await refusal_of(service.silent(method))  # before anything is read
            assert (refused.code, refused.trailers["problem"]) == ("UNAUTHENTICATED", "/problems/unauthorised"), method
            refused = await refusal_of(service.silent(method, metadata=(("x-api-key", OPS),)))
            assert (refused.code, refused.trailers["problem"]) == ("PERMISSION_DENIED", "/problems/scope-forbidden"), method
        for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
            assert (await refusal_of(service.silent(method))).code == "UNAUTHENTICATED"
            assert (await refusal_of(service.silent(method, metadata=(("x-api-key", WEB),)))).code == "PERMISSION_DENIED"
        for metadata in ((("authorization", f"Bearer {WEB}"),), (("x-api-key", BOTH),)):
            assert (await service.ask("ModelInfer", images(b"\1"), metadata=metadata)).outputs
        refused = await service.refused("ModelInfer", images(b"\1"))
        assert (
            refused.text == "send a key in the header authorization: Bearer KEY, or x-api-key: KEY"
        )  # metadata have small letters
        refused = await service.refused("ModelInfer", images(b"\1"), metadata=(("x-api-key", WRONG),))
        assert (refused.code, refused.text) == ("UNAUTHENTICATED", "this key is not known here")


async def test_rates_are_those_of_http_as_well() -> None:
    async with calling(rate_limit=0.01, rate_burst=2) as service:
        assert (await service.ask("ModelInfer", images(b"\1"))).outputs
        assert (await service.service.client.post("/classify", content=b"\1", headers={"Content-Type": "image/png"})).is_success
        refused = await service.refused("ModelInfer", images(b"\1"))
        assert (refused.code, refused.trailers["problem"]) == ("RESOURCE_EXHAUSTED", "/problems/rate-limited")
        assert int(refused.trailers["retry-after"]) > 50
        assert (await service.ask("ServerLive", b"")).live


async def test_many_at_once_are_all_answered() -> None:
    async with calling() as service:
        answers = await asyncio.gather(*(service.ask("ModelInfer", images(bytes([i])), timeout=20) for i in range(100)))
        assert {len(answer.outputs) for answer in answers} == {2}
        assert service.counted("ModelInfer", 200) == 100


async def test_a_call_has_the_spans_of_a_request_and_a_probe_none() -> None:
    memory = Memory()
    async with calling(make_tracing=memory.make, tracing=True) as service:
        await service.ask("ServerReady", b"")
        assert await service.ask("/grpc.health.v1.Health/Check", b"") == b"\x08\x01"
        call = service.begin("ModelInfer", images(b"\1"), metadata=(("traceparent", SAMPLED),))
        await call
        trailers = dict(await call.trailing_metadata())
    server = memory.server  # the only one
    assert server.name == f"POST {INFER}"
    assert trace_id(server) == TRACE_ID
    assert trailers["traceresponse"] == f"00-{TRACE_ID}-{span_id(server)}-01"
    assert {part.name for part in memory.parts} >= {"prepare", "inference"}


@pytest.mark.parametrize(
    ("peer", "client"), [("ipv6:%5B::1%5D:12", ("::1", 12)), ("ipv4:192.0.2.1:%C2%B2", None), ("unix:", None)]
)
def test_who_calls_is_known_where_it_has_a_port(peer: str, client: tuple[str, int] | None) -> None:
    servicer = SimpleNamespace(peer=lambda: peer, invocation_metadata=tuple)
    assert grpc_calls._Call(SimpleNamespace(path=INFER), servicer).scope()["client"] == client  # type: ignore[arg-type]
