"""What every call passes: gate, limits, errors, deadlines, log and counts; as a request over HTTP does."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from types import SimpleNamespace

import pytest

from app import grpc_calls
from app.logs import JsonFormatter
from app.stubs import oip_pb2 as pb
from tests.app.asgi import until
from tests.app.calling import calling, images, refusal_of
from tests.app.test_access import BOTH, KEYS, OPS, WEB, WRONG
from tests.app.tracing import SAMPLED, TRACE_ID, Memory, span_id, trace_id
from tests.fakes import SECRET, FakeModel

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
