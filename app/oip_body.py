"""Bodies of the Open Inference Protocol over REST: JSON, with tensors inside it or in binary form after it. Knows no HTTP.

Source: Triton Inference Server, docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from app.errors import InvalidParameter, MalformedRequest
from app.oip import VERSION, Array, Output, Requested, Tensor, check_id, check_parameters, images_of, requested_of
from app.oip_binary import split
from app.oip_json import lifted
from app.schemas.oip import OipInput, OipRequest
from model.types import ModelInfo

_MOST_VALUES = 20_000  # of what is left of the JSON; an honest body has some dozens, and each costs memory before it is refused
BOM = b"\xef\xbb\xbf"  # may be overlooked (RFC 8259, section 8.1)
_SIZE = "binary_data_size"
_WORDS = {  # pydantic's names of faults, in words that stay when the library's change
    "json_invalid": "is no valid JSON",
    "missing": "is missing",
    "string_type": "should be text",
    "list_type": "should be a list",
    "model_type": "should be an object",
    "dict_type": "should be an object",
    "int_type": "should be a whole number",
    "bool_type": "should be true or false",
}

JsonT = TypeVar("JsonT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many images a request may have, and how many bytes an encoded one."""

    images: int
    image_bytes: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: the images, encoded or as arrays, and what is wanted of them."""

    id: str | None
    images: Sequence[bytes | Array]
    requested: tuple[Requested, ...]


def read(body: bytes, head_length: int | None, info: ModelInfo, limits: Limits) -> Asked:
    """A request out of its body, of which the first `head_length` bytes are JSON; all of them where that is None.

    Raises:
        MalformedRequest, InvalidParameter, BodyTooLarge: it is not as the model's metadata and the protocol describe it.
    """
    if head_length is not None and head_length > len(body):
        raise InvalidParameter("Inference-Header-Content-Length", head_length, f"at most the {len(body)} bytes of the body")
    height, width = info.preprocess.size
    head = body if head_length is None else body[:head_length]
    text, arrays = lifted(head.removeprefix(BOM), limits.images * height * width * 3, limits.images)
    wire = parsed(text, OipRequest)
    parameters = wire.parameters or {}
    check_parameters(parameters)
    check_id(wire.id or "")
    binary = parameters.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise InvalidParameter("binary_data_output", binary, "true or false")
    outputs = [(each.name, each.parameters or {}) for each in wire.outputs or ()]
    requested = requested_of(outputs, info.num_classes, binary=binary)
    images = images_of(
        _tensors(wire.inputs, body, head_length, arrays),
        size=info.preprocess.size,
        most_images=limits.images,
        most_bytes=limits.image_bytes,
    )
    return Asked(wire.id, images, requested)


def written(model_name: str, request_id: str | None, outputs: Sequence[Output]) -> tuple[bytes, int | None]:
    """The body of an answer, and how many bytes of it are JSON; None where all of them are."""
    raw: list[bytes] = []
    described: list[dict[str, Any]] = []
    for each in outputs:
        entry: dict[str, Any] = {"name": each.name, "shape": each.shape, "datatype": each.datatype}
        if each.binary:
            raw.append(each.raw())
            entry["parameters"] = {_SIZE: len(raw[-1])}
        else:
            entry["data"] = each.data if isinstance(each.data, list) else each.data.ravel().tolist()
        described.append(entry)
    answer: dict[str, Any] = {"model_name": model_name, "model_version": VERSION}
    if request_id is not None:
        answer["id"] = request_id
    head = to_json({**answer, "outputs": described})
    return (b"".join((head, *raw)), len(head)) if raw else (head, None)


def parsed(text: bytes, schema: type[JsonT]) -> JsonT:
    """JSON as a schema has it. How much of it is no text has been looked at.

    Raises:
        MalformedRequest: it is not, or holds too many values.
    """
    if text.count(b",") > _MOST_VALUES:
        raise MalformedRequest(f"the JSON holds more than {_MOST_VALUES} values beside the numbers of its tensors")
    try:
        return schema.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:100] or "the body"
        raise MalformedRequest(f"the JSON is not as documented: {where} {_WORDS.get(first['type'], 'is not')}") from None


def _tensors(inputs: Sequence[OipInput], body: bytes, head_length: int | None, arrays: Mapping[str, Array]) -> list[Tensor]:
    sizes = [_binary_size(each) for each in inputs]
    announced = [size for size in sizes if size is not None]
    if head_length is None and announced:
        raise MalformedRequest("binary data needs the header Inference-Header-Content-Length with the length of the JSON")
    parts = iter(split(body, len(body) if head_length is None else head_length, announced))
    return [
        Tensor(each.name, each.datatype, each.shape, _written_out(each, arrays) if size is None else next(parts))
        for each, size in zip(inputs, sizes, strict=True)
    ]


def _binary_size(each: OipInput) -> int | None:
    parameters = each.parameters or {}
    check_parameters(parameters)
    size = parameters.get(_SIZE)
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise InvalidParameter(_SIZE, size, "a whole number, 0 or more")
    if each.data is not None:
        raise MalformedRequest(f"the input {each.name[:50]!r} has both data and {_SIZE}")
    return size


def _written_out(each: OipInput, arrays: Mapping[str, Array]) -> Array | list[str]:
    if isinstance(each.data, str) and each.data in arrays:
        return arrays[each.data]
    if not isinstance(each.data, list):
        raise MalformedRequest(f"the input {each.name[:50]!r} needs data, a list, or {_SIZE}")
    if not all(isinstance(text, str) for text in each.data):
        raise MalformedRequest(f"the data of {each.name[:50]!r} should be a list of texts, or of finite numbers")
    return each.data
