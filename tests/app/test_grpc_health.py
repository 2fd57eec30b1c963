"""gRPC's own health service, by its bytes on the wire, as a probe that knows the standard sends them."""

from __future__ import annotations

from tests.app.calling import calling

CHECK = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


def of(service: str) -> bytes:
    return b"\x0a" + bytes([len(service)]) + service.encode() if service else b""


async def test_ready_while_a_model_serves() -> None:
    async with calling() as service:
        for name in ("", "inference.GRPCInferenceService", "default", "liveness"):
            assert await service.ask(CHECK, of(name)) == SERVING
        await service.service.parts.swaps.unload()
        for name in ("", "inference.GRPCInferenceService", "default"):
            assert await service.ask(CHECK, of(name)) == NOT_SERVING
        assert await service.ask(CHECK, of("liveness")) == SERVING


async def test_an_unknown_service_is_not_found() -> None:
    async with calling() as service:
        refused = await service.refused(CHECK, of("other"))
        assert refused.code == "NOT_FOUND"


async def test_not_ready_from_the_signal_on() -> None:
    async with calling() as service:
        service.service.parts.classifier.drain()
        assert await service.ask(CHECK, b"") == NOT_SERVING


async def test_watch_is_not_there() -> None:
    async with calling() as service:
        assert (await service.refused("/grpc.health.v1.Health/Watch", b"")).code == "UNIMPLEMENTED"
