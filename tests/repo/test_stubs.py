"""The generated messages are those that others published, field by field, and stand beside theirs in one process."""

from __future__ import annotations

from functools import cache

import pytest
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2 as theirs

from app.stubs import health_pb2
from app.stubs import oip_pb2 as ours
from tests.repo import stubs


def definition(module: object) -> descriptor_pb2.FileDescriptorProto:
    found = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(found)  # type: ignore[attr-defined]
    return found


def test_every_message_is_the_published_one() -> None:
    published = {message.name: message for message in definition(theirs).message_type}
    messages = definition(ours).message_type
    assert {"ModelInferRequest", "InferTensorContents", "RepositoryIndexResponse"} <= {message.name for message in messages}
    for message in messages:
        assert message == published[message.name], message.name  # names, numbers, types, labels, nested ones


def test_every_method_is_the_published_one() -> None:
    (service,), (whole,) = definition(ours).service, definition(theirs).service
    assert (definition(ours).package, service.name) == (definition(theirs).package, whole.name)
    published = {method.name: method for method in whole.method}
    assert {method.name for method in service.method} == set(stubs.METHODS)
    for method in service.method:
        assert method == published[method.name]


def test_a_message_of_theirs_is_one_of_ours() -> None:
    request = theirs.ModelInferRequest(model_name="a", raw_input_contents=[b"x"])
    request.inputs.add(name="image", shape=[-1]).parameters["k"].int64_param = -5
    assert ours.ModelInferRequest.FromString(request.SerializeToString()).inputs[0].parameters["k"].int64_param == -5
    assert ours.DESCRIPTOR.pool is not theirs.DESCRIPTOR.pool
    assert health_pb2.HealthCheckResponse(status="SERVING").SerializeToString() == b"\x08\x01"


@pytest.mark.parametrize("name", sorted(path.name for path in stubs.FOLDER.glob("*_pb2.py*")))
def test_the_files_are_what_is_generated(name: str) -> None:
    assert (stubs.FOLDER / name).read_text() == made()[name]


@cache
def made() -> dict[str, str]:
    return stubs.made()
