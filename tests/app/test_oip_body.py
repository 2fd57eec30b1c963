"""Requests of the Open Inference Protocol out of their bodies: every form of every input, and each way in which one is wrong."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from app.errors import AppError, BodyTooLarge, InvalidParameter, MalformedRequest
from app.oip import Requested
from app.oip_binary import packed
from app.oip_body import BOM, Asked, Limits, read
from app.schemas.oip import OipRequest
from model.types import PreprocessSpec
from tests.fakes import fake_info

INFO = replace(fake_info(), preprocess=PreprocessSpec(size=(2, 3)))
LIMITS = Limits(images=3, image_bytes=40)
PIXELS = np.arange(36, dtype=np.uint8).reshape(2, 2, 3, 3)
FLOATS = (np.arange(36, dtype=np.float32) / 8 - 2).reshape(2, 3, 2, 3)
ARRAYS: dict[str, tuple[str, NDArray[Any]]] = {"pixels": ("UINT8", PIXELS), "input": ("FP32", FLOATS)}
BOTH = (Requested("probabilities"), Requested("logits"))


def request(name: str = "image", shape: Any = (1,), datatype: Any = None, **more: Any) -> dict[str, Any]:
    """A request of one input; `more` are fields of the input."""
    kind = datatype or {"image": "BYTES", "pixels": "UINT8", "input": "FP32"}.get(name, "BYTES")
    return {"inputs": [{"name": name, "shape": list(shape), "datatype": kind, **more}]}


def text64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def from_json(wire: Any) -> Asked:
    return read(wire if isinstance(wire, bytes) else json.dumps(wire).encode(), None, INFO, LIMITS)


def from_binary(wire: Any, tail: bytes, *, length: int | None = None) -> Asked:
    head = json.dumps(wire).encode()
    return read(head + tail, len(head) if length is None else length, INFO, LIMITS)


def with_tail(name: str, shape: Any, tail: bytes, **more: Any) -> dict[str, Any]:
    return request(name, shape, parameters={"binary_data_size": len(tail)}, **more)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("form", ["flat", "nested", "binary"])
def test_arrays_in_every_form(name: str, form: str) -> None:
    datatype, array = ARRAYS[name]
    if form == "binary":
        asked = from_binary(with_tail(name, array.shape, array.tobytes()), array.tobytes())
    else:
        data = array.tolist() if form == "nested" else array.ravel().tolist()
        asked = from_json(request(name, array.shape, data=data))
    assert len(asked.images) == 2
    for image, expected in zip(asked.images, array, strict=True):
        assert not isinstance(image, bytes)
        assert image.dtype == expected.dtype, datatype
        assert np.array_equal(image, expected)
    assert asked.requested == BOTH
    assert asked.id is None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_encoded_images_in_both_forms(count: int) -> None:
    images = [b"image %d" % i for i in range(count)]
    assert from_json(request(shape=(count,), data=[text64(image) for image in images])).images == images
    assert (
        from_json(request(shape=(count,), data=[f"data:image/png;base64,{text64(image)}" for image in images])).images == images
    )
    asked = from_binary(with_tail("image", (count,), packed(images)), packed(images))
    assert asked.images == images
    assert all(type(image) is bytes for image in asked.images)


def test_binary_arrays_are_not_copied() -> None:
    head = json.dumps(with_tail("pixels", PIXELS.shape, PIXELS.tobytes())).encode()
    body = head + PIXELS.tobytes()
    (first, _) = read(body, len(head), INFO, LIMITS).images
    assert np.shares_memory(first, np.frombuffer(body, np.uint8))


def test_what_is_no_number_is_for_the_model_to_refuse_in_binary_form() -> None:
    data = struct.pack("<18f", *[float("nan")] * 18)
    (image,) = from_binary(with_tail("input", (1, 3, 2, 3), data), data).images
    assert np.isnan(image).all()


def test_id_outputs_and_parameters() -> None:
    wire = request(data=["QUJD"]) | {
        "id": "x\u00e9",
        "parameters": {"binary_data_output": True, "priority": 1, "sequence_id": "a"},
    }
    wire["model_name"] = "some clients say so"
    asked = from_json(wire)
    assert (asked.id, asked.requested) == ("x\u00e9", (Requested("probabilities", 0, True), Requested("logits", 0, True)))
    wire["outputs"] = [
        {"name": "logits", "parameters": {"classification": 7, "unknown": [1]}},
        {"name": "probabilities", "parameters": {"binary_data": False}},
    ]
    assert from_json(wire).requested == (Requested("logits", 7, True), Requested("probabilities", 0, False))
    assert from_json(request(data=["QUJD"]) | {"outputs": []}).requested == BOTH


def test_null_is_as_good_as_nothing() -> None:
    wire = request(data=["QUJD"], parameters=None) | {"id": None, "parameters": None, "outputs": None}
    assert from_json(wire) == from_json(request(data=["QUJD"]))
    asked = from_json(request(data=["QUJD"]) | {"outputs": [{"name": "logits", "parameters": None}]})
    assert asked.requested == (Requested("logits"),)


def output(name: str = "logits", **parameters: Any) -> dict[str, Any]:
    return request(data=["QUJD"]) | {"outputs": [{"name": name, "parameters": parameters}]}


ONE_PIXELS = {"name": "pixels", "shape": [1, 2, 3, 3], "datatype": "UINT8", "data": [0] * 18}
WRONG: list[tuple[Any, type[AppError], str]] = [
    (b"", MalformedRequest, "the body is no valid JSON"),
    (b"{", MalformedRequest, "is no valid JSON"),
    (b"[]", MalformedRequest, "the body should be an object"),
    (b"\xff{}", MalformedRequest, "is no valid JSON"),
    (b'{"a": "\xff"}', MalformedRequest, "is no valid JSON"),
    ({}, MalformedRequest, "inputs is missing"),
    ({"inputs": {}}, MalformedRequest, "inputs should be a list"),
    ({"inputs": [1]}, MalformedRequest, r"inputs\.0 should be an object"),
    ({"inputs": []}, MalformedRequest, "give exactly one of the inputs image, pixels, input; given: none"),
    ({"inputs": request(data=["QQ=="])["inputs"] * 2}, MalformedRequest, "given: 'image', 'image'"),
    ({"inputs": [*request(data=["QQ=="])["inputs"], ONE_PIXELS]}, MalformedRequest, "given: 'image', 'pixels'"),
    (request("picture", data=["QQ=="]), InvalidParameter, "'picture': it may be image or pixels or input"),
    (request(datatype="STRING", data=["QQ=="]), InvalidParameter, "the datatype of image is 'STRING': it may be BYTES"),
    (request("pixels", (1, 2, 3, 3), "FP32", data=[0] * 18), InvalidParameter, "datatype of pixels is 'FP32': it may be UINT8"),
    (request("input", (1, 3, 2, 3), "FP16", data=[0] * 18), InvalidParameter, "it may be FP32"),
    (request(shape=(1, 1), data=["QQ=="]), InvalidParameter, r"shape of image is '\[1, 1\]': it may be \[N\] with N images"),
    (request(shape=(), data=["QQ=="]), InvalidParameter, "the shape of image"),
    (request("pixels", (1, 3, 2, 3), data=[0] * 18), InvalidParameter, r"it may be \[N, 2, 3, 3\] with N images"),
    (request("input", (3, 2, 3), data=[0] * 18), InvalidParameter, r"it may be \[N, 3, 2, 3\]"),
    (request("input", (1, 2, 3, 3), data=[0] * 18), InvalidParameter, r"it may be \[N, 3, 2, 3\]"),
    (request(shape=(0,), data=[]), InvalidParameter, "number of images is '0': it may be a whole number from 1 to 3"),
    (request(shape=(4,), data=["QQ=="] * 4), InvalidParameter, "number of images is '4'"),
    (request(shape=(2**62,), data=["QQ=="]), InvalidParameter, "number of images"),
    (request(shape=(-1,), data=["QQ=="]), InvalidParameter, "number of images is '-1'"),
    (request(shape=(1.0,), data=["QQ=="]), MalformedRequest, r"shape\.0 should be a whole number"),
    (request(shape=(True,), data=["QQ=="]), MalformedRequest, r"shape\.0 should be a whole number"),
    (request(shape=[1] * 99, data=["QQ=="]), InvalidParameter, "the shape of image"),
    (request(shape=(2,), data=["QQ=="]), MalformedRequest, "the data of image has 1 elements; its shape announces 2"),
    (request(data=["QQ==", "QQ=="]), MalformedRequest, "the data of image has 2 elements; its shape announces 1"),
    (request(data=["a photograph"]), MalformedRequest, "no valid base64"),
    (request(data=["\u00e9"]), MalformedRequest, "no valid base64"),
    (request(data=[""]), MalformedRequest, "the image is empty"),
    (request(data=[text64(bytes(41))]), BodyTooLarge, "at most 40"),
    (request(data=[1, 2]), MalformedRequest, "it holds numbers"),
    (request(data=["QQ==", 1]), MalformedRequest, "should be a list of texts, or of finite numbers"),
    (request(data="QQ=="), MalformedRequest, "the input 'image' needs data, a list, or binary_data_size"),
    (request(), MalformedRequest, "needs data"),
    (request(data=None), MalformedRequest, "needs data"),
    (request("pixels", (1, 2, 3, 3), data=["QQ=="]), MalformedRequest, "the data of pixels should be numbers; it holds texts"),
    (request("pixels", (1, 2, 3, 3), data=[]), MalformedRequest, "the data of pixels should be numbers; it holds nothing"),
    (request("pixels", (1, 2, 3, 3), data=[0] * 17), MalformedRequest, "pixels has 17 numbers; its shape takes 18"),
    (request("pixels", (1, 2, 3, 3), data=[0] * 17 + [256]), MalformedRequest, "whole numbers from 0 to 255"),
    (request("pixels", (1, 2, 3, 3), data=[0] * 17 + [-1]), MalformedRequest, "whole numbers from 0 to 255"),
    (request("pixels", (1, 2, 3, 3), data=[0] * 17 + [0.5]), MalformedRequest, "whole numbers from 0 to 255"),
    (request("pixels", (1, 2, 3, 3), data=[0] * 17 + [1e300]), MalformedRequest, "whole numbers from 0 to 255"),
    (request("input", (1, 3, 2, 3), data=[0] * 17 + [float("nan")]), MalformedRequest, "the data holds 'NaN"),
    (request("input", (1, 3, 2, 3), data=[0] * 55), MalformedRequest, "more than 54 numbers"),
    (request("input", (1, 3, 2, 3), data=[10**400] * 18), MalformedRequest, "the data"),
    (request(data=["QQ=="], parameters={"shared_memory_region": "x"}), MalformedRequest, "no shared memory"),
    (request(data=["QQ=="], parameters=[]), MalformedRequest, "parameters should be an object"),
    (request(data=["QQ=="], parameters={"binary_data_size": 1}), MalformedRequest, "has both data and binary_data_size"),
    (request(parameters={"binary_data_size": -1}), InvalidParameter, "binary_data_size is '-1'"),
    (request(parameters={"binary_data_size": True}), InvalidParameter, "binary_data_size is 'True'"),
    (request(parameters={"binary_data_size": 1}), MalformedRequest, "needs the header Inference-Header-Content-Length"),
    (request(data=["QQ=="]) | {"id": 7}, MalformedRequest, "id should be text"),
    (request(data=["QQ=="]) | {"id": "7" * 1025}, MalformedRequest, "the id has 1025 characters; at most 1024"),
    (request(data=["QQ=="]) | {"parameters": {"binary_data_output": 1}}, InvalidParameter, "binary_data_output is '1'"),
    (request(data=["QQ=="]) | {"outputs": [{}]}, MalformedRequest, r"outputs\.0\.name is missing"),
    (request(data=["QQ=="]) | {"outputs": [{"name": "logits"}] * 2}, MalformedRequest, "more than once: 'logits', 'logits'"),
    (output("scores"), InvalidParameter, "'scores': it may be probabilities or logits"),
    (output(classification=0), InvalidParameter, "classification is '0': it may be a whole number from 1 to 7"),
    (output(classification=8), InvalidParameter, "classification is '8'"),
    (output(classification=1.0), InvalidParameter, "classification is '1.0'"),
    (output(classification="3"), InvalidParameter, "classification is '3': it may be a whole number from 1 to 7, and no text"),
    (output(classification=True), InvalidParameter, "classification is 'True'"),
    (output(binary_data="yes"), InvalidParameter, "binary_data is 'yes': it may be true or false"),
    (output(shared_memory_region="x"), MalformedRequest, "no shared memory"),
    ({"inputs": [], "x": list(range(20_002))}, MalformedRequest, "more than 20000 values"),
    (b"[" * 100_000, MalformedRequest, "is no valid JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "kind", "words"), WRONG)
def test_what_is_wrong_is_said(wire: Any, kind: type[AppError], words: str) -> None:
    with pytest.raises(kind, match=words):
        from_json(wire)


@pytest.mark.parametrize("name", ["inputs", "outputs", "shape"])
def test_the_first_fault_of_many_is_enough(name: str) -> None:
    wire: dict[str, Any] = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]}
    if name == "shape":
        wire["inputs"][0]["shape"] = ["1"] * 1000
    else:
        wire[name] = [{}] * 1000
    with pytest.raises(ValidationError) as found:
        OipRequest.model_validate_json(json.dumps(wire))
    assert found.value.error_count() <= 3  # those of one object


def test_a_byte_order_mark_is_overlooked() -> None:
    wire = json.dumps(request(data=["QUJD"])).encode()
    assert from_json(BOM + wire) == from_json(wire)
    assert read(BOM + wire, 3 + len(wire), INFO, LIMITS) == from_json(wire)


WRONG_BINARY: list[tuple[dict[str, Any], bytes, type[AppError], str]] = [
    (with_tail("pixels", (1, 2, 3, 3), bytes(17)), bytes(17), MalformedRequest, "has 17 bytes; its shape takes 18"),
    (with_tail("input", (1, 3, 2, 3), bytes(18)), bytes(18), MalformedRequest, "has 18 bytes; its shape takes 72"),
    (with_tail("pixels", (1, 2, 3, 3), bytes(18)), bytes(17), MalformedRequest, "the body has 17 bytes; .* say 18"),
    (with_tail("pixels", (1, 2, 3, 3), bytes(18)), bytes(19), MalformedRequest, "the body has 19 bytes; .* say 18"),
    (request(data=["QUJD"]), b"\0", MalformedRequest, "the body has 1 bytes; .* say 0"),
    (with_tail("image", (1,), packed([b""])), packed([b""]), MalformedRequest, "image 0 is empty"),
    (with_tail("image", (1,), packed([bytes(41)])), packed([bytes(41)]), BodyTooLarge, "at most 40"),
    (with_tail("image", (2,), packed([b"a"])), packed([b"a"]), MalformedRequest, "has 1 elements"),
    (with_tail("image", (1,), b"abc"), b"abc", MalformedRequest, "cut short"),
]


@pytest.mark.parametrize(("wire", "tail", "kind", "words"), WRONG_BINARY)
def test_what_is_wrong_with_binary_data_is_said(wire: dict[str, Any], tail: bytes, kind: type[AppError], words: str) -> None:
    with pytest.raises(kind, match=words):
        from_binary(wire, tail)


def test_json_that_is_longer_than_the_body() -> None:
    with pytest.raises(InvalidParameter, match="Inference-Header-Content-Length is '9999': it may be at most the"):
        from_binary(request(data=["QUJD"]), b"", length=9999)
    with pytest.raises(MalformedRequest, match="is no valid JSON"):
        from_binary(request(data=["QUJD"]), b"", length=0)
