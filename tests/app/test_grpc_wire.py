"""What a message holds is counted before it is read, and only up to what it may hold."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError

from app.errors import MalformedRequest
from app.grpc_wire import FIELDS, TEXT_BYTES, Bounds, check
from app.stubs import oip_pb2 as pb
from tests.app.calling import images, part

KIND = pb.ModelInferRequest.DESCRIPTOR


def counted(data: bytes, **bounds: int) -> None:
    check(data, KIND, Bounds(**bounds))


def test_an_honest_message_passes() -> None:
    request = images(b"\xff" * 100_000, b"\x80" * 100_000, id="mine")
    request.parameters["some"].int64_param = -1
    request.parameters["other"].double_param = 0.5
    request.outputs.add(name="logits").parameters["classification"].int64_param = 3
    request.inputs[0].contents.fp32_contents.extend([0.5] * 100)
    request.inputs[0].contents.uint_contents.extend([255] * 100)
    counted(request.SerializeToString(), numbers=100 + 100 + 1)


def test_every_field_counts_once_at_every_depth() -> None:
    data = images(b"a", b"b").SerializeToString()  # model_name, inputs: name, datatype, shape, contents: two
    counted(data, fields=8, numbers=1)
    with pytest.raises(MalformedRequest, match=r"^the message has more than 7 fields$"):
        counted(data, fields=7, numbers=1)


@pytest.mark.parametrize("field", [4, 5, 6, 7, 9999])
def test_the_count_ends_at_the_first_field_too_many(field: int) -> None:
    """What comes after it is no message, and is never looked at."""
    with pytest.raises(MalformedRequest, match=f"more than {FIELDS} fields"):
        counted(part(1, b"default") + part(field, b"") * FIELDS + b"\xff" * 20)


@pytest.mark.parametrize(
    "many",
    [
        part(3, b"\1") * FIELDS,  # a shape in parts
        b"\x18\1" * FIELDS,  # and one that is not packed
        part(5, part(8, b"") * FIELDS),
        part(5, b"\x35\0\0\0\0" * FIELDS),
        part(4, b"") * FIELDS,
    ],
)
def test_fields_of_an_input_count_as_well(many: bytes) -> None:
    with pytest.raises(MalformedRequest, match=f"more than {FIELDS} fields"):
        counted(part(5, many))


@pytest.mark.parametrize(("field", "width"), [(2, 2), (3, 2), (4, 2), (6, 4), (7, 8)])
def test_packed_numbers_are_bounded(field: int, width: int) -> None:
    def tensor(count: int) -> bytes:
        return part(5, part(5, part(field, b"\1" * (count * width))))

    counted(tensor(100), numbers=100)
    with pytest.raises(MalformedRequest, match="more than 100 numbers"):
        counted(tensor(101), numbers=100)
    with pytest.raises(MalformedRequest, match="more than 100 numbers"):
        counted(tensor(60) + tensor(60), numbers=100)


def test_names_are_bounded() -> None:
    counted(part(1, b"x" * TEXT_BYTES))
    with pytest.raises(MalformedRequest, match=f"more than {TEXT_BYTES} bytes"):
        counted(part(1, b"x" * TEXT_BYTES) + part(3, b"x"))


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05abc", b"\x0b", b"\x0d\0", b"\xff" * 20, part(5, b"\x0a\x05abc")])
def test_what_is_cut_off_or_no_message(data: bytes) -> None:
    with pytest.raises(DecodeError):
        counted(data)


def test_the_parser_agrees_on_where_fields_end() -> None:
    """Whatever is cut off for the one is so for the other."""
    data = images(b"abc", b"d" * 200).SerializeToString()

    def parses(read: Any) -> bool:
        try:
            read()
        except DecodeError:
            return False
        return True

    for end in range(len(data)):
        cut = data[:end]
        assert parses(lambda cut=cut: counted(cut)) == parses(lambda cut=cut: pb.ModelInferRequest.FromString(cut)), end
