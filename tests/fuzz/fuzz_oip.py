"""Any bytes as the body of a request of the Open Inference Protocol, against a reading by the standard library; and the answers.

An input is JSON, and where there is a byte 0xFF, which no UTF-8 has, the tensors in binary form after it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import oip_json
from app.errors import AppError
from app.oip import OUTPUTS, outputs_of
from app.oip_body import Asked, Limits, read, written
from model.types import ModelInfo, PreprocessSpec, ScoreFunction
from tests.fakes import fake_info
from tests.fuzz.fuzz_base64 import ours

INFO = replace(fake_info(), preprocess=PreprocessSpec(size=(1, 2)))
LIMITS = Limits(images=3, image_bytes=50)
STEPS = (1 << 16, 32)  # characters of numbers read at a time: whole, and in pieces
NAMES = {"image": "BYTES", "pixels": "UINT8", "input": "FP32"}
KINDS: dict[str, tuple[np.dtype[Any], str, tuple[int, int, int]]] = {
    "UINT8": (np.dtype(np.uint8), "B", (1, 2, 3)),
    "FP32": (np.dtype(np.float32), "f", (3, 1, 2)),
}


@dataclass
class Scored:
    """What is read of the result of one image."""

    scores: dict[ScoreFunction, NDArray[np.float32]]
    info: ModelInfo


def seeds() -> Iterator[bytes]:
    """Requests in order in every form, and what is nearly right."""
    numbers = [0, 1, 2, 253, 254, 255]
    yield packed("image", [1], data=["QUJD"])
    yield packed("image", [2], data=["QUJD", "data:image/png;base64,QQ=="], requested=[{"name": "logits"}])
    yield packed("pixels", [1, 1, 2, 3], data=numbers)
    yield packed("pixels", [1, 1, 2, 3], data=[[[numbers[:3], numbers[3:]]]])
    yield packed("pixels", [2, 1, 2, 3], data=[[[numbers[:3], numbers[3:]]]] * 2, spaces=True)
    yield packed("input", [1, 3, 1, 2], data=[0.5, -1e-3, 2e10, 1, -0.0, 0])
    yield packed("input", [1, 3, 1, 2], data=[0.5, float("nan"), float("inf"), 1, 2, 3])
    yield packed("image", [2], tail=struct.pack("<I3sI2s", 3, b"ABC", 2, b"\xff\0"))
    yield packed("image", [1], tail=struct.pack("<I", 2**32 - 1) + b"A")
    yield packed("pixels", [1, 1, 2, 3], tail=bytes(numbers), requested=[{"name": "logits", "parameters": {"classification": 2}}])
    both = {"name": "probabilities", "parameters": {"classification": 7, "binary_data": False}}
    yield packed("input", [2, 3, 1, 2], tail=struct.pack("<12f", *range(12)), requested=[both, {"name": "logits"}], binary=True)
    twice = b'{"inputs": [{"name": "pixels", "shape": [1, 1, 2, 3], "datatype": "UINT8", "data": [1, 2], "data": [1,2,3,4,5,6]}]}'
    yield twice
    for wrong in (
        b"[1 [, 2]]",
        b"[1,]",
        b"[[1][2]]",
        b"[,1]",
        b"[[], 1]",
        b"[1 2]",
        b"[1",
        b"[1, x]",
        b"[1]]",
        b"[1], [2]",
        b"[1[], 2]",
    ):
        yield b'{"id": "\\"data\\": [1, 2]\\\\", "inputs": [], "data": %b}' % wrong


def packed(
    name: str,
    shape: list[int],
    *,
    data: list[Any] | None = None,
    tail: bytes | None = None,
    requested: list[dict[str, Any]] | None = None,
    binary: bool = False,
    spaces: bool = False,
) -> bytes:
    """One input."""
    tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": NAMES[name]}
    tensor.update({"data": data} if tail is None else {"parameters": {"binary_data_size": len(tail)}})
    request: dict[str, Any] = {"id": "7", "inputs": [tensor], "outputs": requested or []}
    if binary:
        request["parameters"] = {"binary_data_output": True}
    head = json.dumps(request, indent=1 if spaces else None).encode()
    return head if tail is None else head + b"\xff" + tail


def check(data: bytes) -> None:
    """Only our own errors come out; images come out only as another reader finds them; answers are what another reader finds."""
    head, mark, tail = data.partition(b"\xff")
    length = len(head) if mark else None
    whole, pieces = (asked(head + tail, length, step) for step in STEPS)
    if pieces is not None:  # a number may be longer than a piece
        assert whole is not None
        assert same(whole, pieces), "pieces make a difference"
    if whole is None:
        return
    wire = json.loads(head.decode(), parse_int=lambda text: int(text[:400]))
    assert whole.id == wire.get("id")
    check_images(whole, wire["inputs"], tail)
    check_answer(whole)


def asked(body: bytes, length: int | None, step: int) -> Asked | None:
    """The request, or None where it is refused."""
    before, oip_json.STEP = oip_json.STEP, step
    try:
        return read(body, length, INFO, LIMITS)
    except AppError:
        return None
    finally:
        oip_json.STEP = before


def same(one: Asked, other: Asked) -> bool:
    pairs = zip(one.images, other.images, strict=True)
    return one.requested == other.requested and all(bytes(a) == bytes(b) for a, b in pairs)


def check_images(found: Asked, inputs: list[dict[str, Any]], tail: bytes) -> None:
    """There is one input, and its data are the images."""
    (tensor,) = inputs
    assert tensor["datatype"] == NAMES[tensor["name"]]
    assert 1 <= len(found.images) == tensor["shape"][0] <= LIMITS.images
    written_out = tensor.get("data") is not None
    assert written_out or tensor["parameters"]["binary_data_size"] == len(tail)
    if tensor["datatype"] == "BYTES":
        assert list(found.images) == ([ours(text) for text in tensor["data"]] if written_out else elements(tail))
        assert all(isinstance(image, bytes) and 0 < len(image) <= LIMITS.image_bytes for image in found.images)
        return
    kind, code, shape = KINDS[tensor["datatype"]]
    count = len(found.images) * 6
    numbers = flat(tensor["data"]) if written_out else struct.unpack(f"<{count}{code}", tail)
    with np.errstate(over="ignore"):
        expected = np.array(numbers, np.float64).astype(kind if written_out else np.float64).reshape(-1, *shape)
    assert not written_out or len(numbers) == count
    for image, other in zip(found.images, expected, strict=True):
        assert not isinstance(image, bytes)
        assert image.dtype == kind
        assert image.shape == shape
        assert np.array_equal(image, other.astype(kind), equal_nan=True)


def flat(value: Any) -> list[float]:
    """The numbers of lists of lists."""
    if isinstance(value, list):
        return [number for each in value for number in flat(each)]
    assert type(value) in (int, float)
    return [value]


def elements(data: bytes) -> list[bytes]:
    """The elements of BYTES, one after the other."""
    found = []
    while data:
        (length,) = struct.unpack("<I", data[:4])
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


def check_answer(found: Asked) -> None:
    """What is answered is what was asked for, and another reader finds every score in it."""
    rows = np.linspace(0, 1, len(found.images) * 7, dtype=np.float32).reshape(-1, 7)
    results: list[Any] = [Scored({function: row - i for i, function in enumerate(OUTPUTS.values())}, INFO) for row in rows]
    content, length = written("default", found.id, outputs_of(results, found.requested))
    answer = json.loads(content[:length])
    assert answer.get("id") == found.id
    tail = b"" if length is None else content[length:]
    for wanted, output in zip(found.requested, answer["outputs"], strict=True):
        assert output["name"] == wanted.name
        assert output["shape"] == [len(rows), wanted.classes or 7]
        size = output.get("parameters", {}).get("binary_data_size", 0)
        assert bool(size) == wanted.binary == ("data" not in output)
        data: list[Any]
        if wanted.classes:
            data = [text.decode() for text in elements(tail[:size])] if size else output["data"]
            got = [float(text.split(":")[0]) for text in data]
            expected = np.sort(rows)[:, ::-1][:, : wanted.classes]
        else:
            data = list(struct.unpack(f"<{size // 4}f", tail[:size])) if size else output["data"]
            got, expected = data, rows
        assert np.array_equal(np.array(got, np.float32), (expected - [*OUTPUTS].index(wanted.name)).ravel())
        tail = tail[size:]
    assert not tail
