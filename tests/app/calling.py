"""A service with its gRPC port on loopback, and calls of it: whole ones, and such as no client makes."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import aio

from app.oip_grpc import SERVICE
from app.stubs import oip_pb2 as pb
from tests.app.asgi import Service, serving
from tests.fakes import FakeModel

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Refusal:
    """An error as a client sees it."""

    code: str
    text: str
    trailers: dict[str, str]


@dataclass(frozen=True)
class Callee:
    """A running service and a connection to it."""

    service: Service
    channel: Any
    port: int

    def begin(self, method: str, request: Any, **more: Any) -> Any:
        """A call under way; of the protocol's service unless the method is a whole path."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        return self.channel.unary_unary(path_of(method))(data, **more)

    async def ask(self, method: str, request: Any, **more: Any) -> Any:
        """The answer, of a method of the protocol as its message."""
        kind = getattr(pb, f"{method}Response", None)
        data = await self.begin(method, request, **more)
        return data if kind is None else kind.FromString(data)

    async def refused(self, method: str, request: Any, **more: Any) -> Refusal:
        """The error that a call must end with."""
        return await refusal_of(self.begin(method, request, **more))

    def silent(self, method: str = "ModelInfer", **more: Any) -> Any:
        """A call whose message never comes."""
        return self.channel.stream_unary(path_of(method))(**more)

    def counted(self, method: str, status: object) -> float:
        """How many calls the metrics have of a method and status."""
        return self.service.metric("sknet_requests_total", route=path_of(method), status=str(status))


def path_of(method: str) -> str:
    return method if method.startswith("/") else f"/{SERVICE}/{method}"


async def refusal_of(call: Any) -> Refusal:
    try:
        await call
    except aio.AioRpcError as error:
        return Refusal(error.code().name, error.details() or "", {name: str(value) for name, value in error.trailing_metadata()})
    raise AssertionError("it was answered")


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return int(some.getsockname()[1])


@asynccontextmanager
async def calling(model: FakeModel | None = None, **settings: Any) -> AsyncIterator[Callee]:
    """A service that is ready, over gRPC."""
    port = free_port()
    async with serving(model, grpc_port=port, **settings) as service:
        async with aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_send_message_length", -1)]) as channel:
            yield Callee(service, channel, port)


def images(*parts: bytes, name: str = "default", **more: Any) -> Any:
    """A request to classify encoded images, which came one by one."""
    request = pb.ModelInferRequest(model_name=name, **more)
    request.inputs.add(name="image", datatype="BYTES", shape=[len(parts)]).contents.bytes_contents.extend(parts)
    return request


def part(number: int, data: bytes) -> bytes:
    """A field of a message on the wire."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def texts(found: Iterable[bytes]) -> list[str]:
    return [each.decode() for each in found]


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.name
