"""The stubs in `app/stubs`, made by protoc out of definitions that others published. `python -m tests.repo.stubs` writes them.

The Open Inference Protocol is taken from the descriptors in the package `tritonclient` (BSD-3-Clause, with the model repository
in the same service), less the methods that this service does not have and the messages that only those need.

Protoc's modules put their definition into the pool of the whole process, where no two files may define the same message: who
imports a client of this protocol beside the service could not. Ours have a pool each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from tritonclient.grpc import service_pb2

FOLDER = Path(__file__).parents[2] / "app" / "stubs"
SERVICE = "GRPCInferenceService"
METHODS = (
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer",
    "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload",
)  # fmt: skip
# gRPC Health Checking Protocol: grpc.io, "Health Checking", version 1. What Kubernetes' gRPC probes call.
HEALTH = """
syntax = "proto3";
package grpc.health.v1;

message HealthCheckRequest {
  string service = 1;
}

message HealthCheckResponse {
  enum ServingStatus {
    UNKNOWN = 0;
    SERVING = 1;
    NOT_SERVING = 2;
    SERVICE_UNKNOWN = 3;
  }
  ServingStatus status = 1;
}

service Health {
  rpc Check(HealthCheckRequest) returns (HealthCheckResponse);
}
"""


def published() -> descriptor_pb2.FileDescriptorProto:
    """The whole definition in the client's package."""
    whole = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(whole)
    return whole


def ours(whole: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """What remains of it: `METHODS`, and the messages that they are made of."""
    (service,) = (each for each in whole.service if each.name == SERVICE)
    methods = [each for each in service.method if each.name in METHODS]
    messages = {f".{whole.package}.{each.name}": each for each in whole.message_type}
    needed: set[str] = set()
    waiting = [name for method in methods for name in (method.input_type, method.output_type)]
    while waiting:
        name = ".".join(waiting.pop().split(".")[:3])  # what is nested comes with what it is nested in
        if name not in needed:
            needed.add(name)
            waiting += _names(messages[name])
    part = descriptor_pb2.FileDescriptorProto(name="oip.proto", package=whole.package, syntax=whole.syntax)
    part.message_type.extend(each for name, each in messages.items() if name in needed)
    part.service.add(name=service.name).method.extend(methods)
    return part


def _names(message: descriptor_pb2.DescriptorProto) -> Iterator[str]:
    yield from (field.type_name for field in message.field if field.type_name)
    for nested in message.nested_type:
        yield from _names(nested)


def made() -> dict[str, str]:
    """The text of each generated file, by name."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "oip.binpb").write_bytes(descriptor_pb2.FileDescriptorSet(file=[ours(published())]).SerializeToString())
        (root / "health.proto").write_text(HEALTH)
        for source, name in ((f"--descriptor_set_in={root / 'oip.binpb'}", "oip"), (f"-I{root}", "health")):
            status = protoc.main(["protoc", source, f"--python_out={root}", f"--pyi_out={root}", f"{name}.proto"])
            if status:
                raise RuntimeError(f"protoc ended with {status} for {name}.proto")
        texts = {path.name: path.read_text() for path in root.glob("*_pb2.py*")}
    return {name: _licensed(name, _apart(name, text)) for name, text in texts.items()}


def _apart(name: str, text: str) -> str:
    """With a pool of its own instead of the process's."""
    default, own = "_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"
    if name.endswith(".py") and text.count(default) != 1:
        raise RuntimeError(f"{name} does not use the process's pool once, as protoc's modules did")
    return text.replace(default, own)


def _licensed(name: str, text: str) -> str:
    if not name.startswith("oip"):
        return text
    (licence,) = (path for path in distribution("tritonclient").files or () if path.name == "LICENSE.txt")
    return f"# Generated from the definition in the package tritonclient, whose licence is:\n#\n{licence.read_text()}\n{text}"


if __name__ == "__main__":
    for name, text in made().items():
        (FOLDER / name).write_text(text)
