"""The Open Inference Protocol over REST: exact answers, every form, errors in the protocol's own form, the same limits."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from app.oip_binary import elements, packed
from app.oip_body import read
from app.settings import Settings
from model.types import PreprocessSpec, ScoreFunction
from tests.app.asgi import Service, exchange, http_scope, part, problem, serving, until
from tests.fakes import LABELS, SECRET, FakeModel, fake_info

MODEL = "/v2/models/default"
INFER = f"{MODEL}/infer"
SHAPE = (2, 3)
CAT, DOG = b"\x02 a cat", b"\x03 a dog"  # the fake model goes by the first byte
CAT_SCORES = [0.5**6, 0.5**7, 0.5, 0.25, 0.125, 0.0625, 0.03125]
CAT_LOGITS = [-2.0, -3.0, 3.0, 2.0, 1.0, 0.0, -1.0]


def small(**model: Any) -> FakeModel:
    """A model whose images have few pixels."""
    return FakeModel(info=replace(fake_info(), preprocess=PreprocessSpec(size=SHAPE)), **model)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(small()) as running:
        yield running


def asking(*images: bytes, **more: Any) -> dict[str, Any]:
    """A request with encoded images in JSON."""
    data = [base64.b64encode(image).decode() for image in images]
    return {"inputs": [{"name": "image", "shape": [len(images)], "datatype": "BYTES", "data": data}], **more}


def binary(name: str, datatype: str, shape: list[int], tail: bytes, **more: Any) -> dict[str, Any]:
    """What httpx sends for a request with its tensor after the JSON."""
    tensor = {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(tail)}}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return {"content": head + tail, "headers": {"Inference-Header-Content-Length": str(len(head))}}


def refused(response: httpx.Response, status: int, words: str) -> None:
    """Hold that this is an error in the protocol's form."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), response.text
    body = response.json()
    assert list(body) == ["error"]
    assert words in body["error"]
    assert response.headers["x-request-id"]


def read_binary(response: httpx.Response) -> tuple[dict[str, Any], bytes]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    return json.loads(response.content[:length]), response.content[length:]


# what serves


async def test_metadata(service: Service) -> None:
    server = (await service.client.get("/v2")).json()
    assert (server["name"], server["extensions"]) == ("sknet", ["classification", "binary_tensor_data", "model_repository"])
    expected = {
        "name": "default",
        "versions": ["1"],
        "platform": "pytorch_sknet",
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, 2, 3, 3]},
            {"name": "input", "datatype": "FP32", "shape": [-1, 3, 2, 3]},
        ],
        "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, 7]} for name in ("probabilities", "logits")],
    }
    assert (await service.client.get(MODEL)).json() == expected
    assert (await service.client.get(f"{MODEL}/versions/1")).json() == expected


async def test_live_and_ready() -> None:
    async with serving(small()) as service:
        get = service.client.get
        assert (await get("/v2/health/live")).json() == {"live": True}
        assert (await get("/v2/health/ready")).json() == {"ready": True}
        for path in (f"{MODEL}/ready", f"{MODEL}/versions/1/ready"):
            assert (await get(path)).json() == {"name": "default", "ready": True}
        await service.parts.classifier.close()
        assert (await get("/v2/health/live")).status_code == 200
        for path in ("/v2/health/ready", f"{MODEL}/ready", f"{MODEL}/versions/1/ready"):
            answer = await get(path)
            refused(answer, 503, "the service is not ready: the service is shutting down")
            assert answer.headers["retry-after"] == "1"
        assert service.metric("sknet_rejected_total", reason="not-ready") == 0  # probes are no refused requests
        refused(await get(MODEL), 503, "shutting down")
        refused(await service.client.post(INFER, json=asking(CAT)), 503, "shutting down")


@pytest.mark.parametrize("path", ["", "/ready", "/versions/1", "/versions/1/ready", "/infer", "/versions/1/infer"])
async def test_another_model_or_version(service: Service, path: str) -> None:
    ask = service.client.post if path.endswith("infer") else service.client.get
    refused(await ask(f"/v2/models/other{path}"), 404, "there is no model 'other'; there is default")
    if "versions" in path:
        refused(await ask(MODEL + path.replace("1", "2")), 404, "no model 'default, version 2'; there is default, version 1")


async def test_no_such_route_or_method(service: Service) -> None:
    refused(await service.client.get("/v2/nothing"), 404, "There is no route /v2/nothing.")
    refused(await service.client.get(INFER), 405, "GET is not allowed here; allowed: POST.")
    problem(await service.client.get("/nothing"), 404, "not-found")  # all others as ever


# infer


async def test_the_answer_is_exactly_the_contract(service: Service) -> None:
    answer = await service.client.post(INFER, json=asking(CAT, id="42"))
    assert answer.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in answer.headers
    assert answer.json() == {
        "model_name": "default",
        "model_version": "1",
        "id": "42",
        "outputs": [
            {"name": "probabilities", "shape": [1, 7], "datatype": "FP32", "data": CAT_SCORES},
            {"name": "logits", "shape": [1, 7], "datatype": "FP32", "data": CAT_LOGITS},
        ],
    }
    assert "inference;dur=" in answer.headers["server-timing"]


PIXELS = np.full((1, 2, 3, 3), 2, np.uint8)
FLOATS = np.full((1, 3, 2, 3), 2, np.float32)


WRITTEN = {
    "pixels": {"name": "pixels", "shape": [1, 2, 3, 3], "datatype": "UINT8", "data": PIXELS.tolist()},
    "input": {"name": "input", "shape": [1, 3, 2, 3], "datatype": "FP32", "data": FLOATS.ravel().tolist()},
}
FORMS: dict[str, dict[str, Any]] = {
    "image, JSON": {"json": asking(CAT)},
    "image, binary": binary("image", "BYTES", [1], packed([CAT])),
    "pixels, JSON": {"json": {"inputs": [WRITTEN["pixels"]]}},
    "pixels, binary": binary("pixels", "UINT8", [1, 2, 3, 3], PIXELS.tobytes()),
    "input, JSON": {"json": {"inputs": [WRITTEN["input"]]}},
    "input, binary": binary("input", "FP32", [1, 3, 2, 3], FLOATS.tobytes()),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", [INFER, f"{MODEL}/versions/1/infer", f"{INFER}?a=b"])
async def test_every_input_in_every_form(service: Service, form: str, path: str) -> None:
    answer = await service.client.post(path, **FORMS[form])
    assert answer.status_code == 200, answer.text
    assert [each["data"] for each in answer.json()["outputs"]] == [CAT_SCORES, CAT_LOGITS]


@pytest.mark.parametrize(
    "media", ["application/json", "application/octet-stream", "text/plain", "application/x-www-form-urlencoded", None]
)
async def test_any_content_type(service: Service, media: str | None) -> None:
    answer = await service.client.post(
        INFER, content=json.dumps(asking(CAT)), headers={} if media is None else {"Content-Type": media}
    )
    assert answer.status_code == 200


async def test_binary_outputs(service: Service) -> None:
    head, tail = read_binary(await service.client.post(INFER, json=asking(CAT, DOG, parameters={"binary_data_output": True})))
    assert "id" not in head
    assert [(each["name"], each["shape"], each["parameters"]) for each in head["outputs"]] == [
        (name, [2, 7], {"binary_data_size": 56}) for name in ("probabilities", "logits")
    ]
    assert struct.unpack("<7f", tail[:28]) == tuple(CAT_SCORES)
    assert struct.unpack("<7f", tail[56:84]) == tuple(CAT_LOGITS)
    wanted = [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "probabilities"}]
    head, tail = read_binary(await service.client.post(INFER, json=asking(CAT, outputs=wanted)))
    assert [each["name"] for each in head["outputs"]] == ["logits", "probabilities"]
    assert struct.unpack("<7f", tail) == tuple(CAT_LOGITS)
    assert head["outputs"][1]["data"] == CAT_SCORES


async def test_classification(service: Service) -> None:
    wanted = [
        {"name": "probabilities", "parameters": {"classification": 2}},
        {"name": "logits", "parameters": {"classification": 3, "binary_data": True}},
    ]
    head, tail = read_binary(await service.client.post(INFER, json=asking(CAT, DOG, outputs=wanted)))
    assert head["outputs"] == [
        {
            "name": "probabilities",
            "shape": [2, 2],
            "datatype": "BYTES",
            "data": ["0.5:2:cat", "0.25:3:dog", "0.5:3:dog", "0.25:4:elk"],
        },
        {"name": "logits", "shape": [2, 3], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}},
    ]
    assert elements(tail, 6, 100)[:3] == [b"3.0:2:cat", b"2.0:3:dog", b"1.0:4:elk"]


async def test_the_same_scores_as_the_native_route(service: Service) -> None:
    native = (
        await service.client.post(f"/classify?top_k={len(LABELS)}", content=DOG, headers={"Content-Type": "image/png"})
    ).json()
    (scores, _) = (await service.client.post(INFER, json=asking(DOG))).json()["outputs"]
    assert scores["data"] == [p["score"] for p in sorted(native["predictions"], key=lambda p: p["index"])]


# errors


class Fewer(FakeModel):
    """A model of five classes."""

    def scores(self, row: Any, function: ScoreFunction) -> NDArray[np.float32]:
        return super().scores(row, function)[:5]


async def test_another_model_comes_while_the_body_does(service: Service) -> None:
    model = Fewer(info=replace(fake_info(), preprocess=PreprocessSpec(size=SHAPE), labels=LABELS[:5]))
    wanted = [{"name": "probabilities", "parameters": {"classification": 7}}]

    async def body() -> AsyncIterator[bytes]:
        text = json.dumps(asking(CAT, outputs=wanted)).encode()
        yield text[:20]
        await service.parts.classifier.load(lambda: model)
        yield text[20:]

    refused(await service.client.post(INFER, content=body()), 422, "classification is '7': it may be a whole number from 1 to 5")
    assert model.batches == []  # it was told of before the image was looked at


async def test_one_bad_image_is_the_requests(service: Service) -> None:
    refused(await service.client.post(INFER, json=asking(b"bad")), 422, "the bytes are no image")
    refused(await service.client.post(INFER, json=asking(CAT, b"bad")), 422, "image 1, counted from 0: the bytes are no image")
    fault = await service.client.post(INFER, json=asking(b"bug", CAT))
    refused(fault, 500, "in the log under this request's id")
    assert SECRET not in fault.text


async def test_an_array_that_no_image_comes_to(service: Service) -> None:
    for value in (float("nan"), 255.0):
        data = np.full((1, 3, 2, 3), value, np.float32).tobytes()
        refused(
            await service.client.post(INFER, **binary("input", "FP32", [1, 3, 2, 3], data)), 422, "the array holds numbers from"
        )


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"content": b""}, 400, "the body is no valid JSON"),
        ({"json": {"inputs": []}}, 400, "give exactly one of the inputs"),
        ({"json": asking(*[CAT] * 33)}, 422, "number of images is '33'"),
        (
            {"json": asking(CAT), "headers": {"Inference-Header-Content-Length": "x"}},
            422,
            "Inference-Header-Content-Length is 'x'",
        ),
        (
            {"json": asking(CAT), "headers": {"Inference-Header-Content-Length": "\u00b2".encode("latin-1")}},
            422,
            "a whole number",
        ),
        ({"json": asking(CAT), "headers": {"Inference-Header-Content-Length": "9" * 30}}, 422, "at most the"),
        (
            {"json": asking(CAT), "headers": {"Content-Encoding": "br"}},
            415,
            "the Content-Encoding 'br' is not accepted; send gzip",
        ),
        ({"json": asking(CAT), "headers": {"Content-Encoding": "gzip"}}, 400, "the body is no valid gzip"),
        ({"json": asking(CAT), "headers": {"X-Timeout-Ms": "no"}}, 422, "X-Timeout-Ms"),
    ],
)
async def test_what_is_wrong_is_said(service: Service, change: dict[str, Any], status: int, words: str) -> None:
    refused(await service.client.post(INFER, **change), status, words)
    assert service.model.prepared == []


async def test_limits_are_the_services() -> None:
    async with serving(small(), max_body_bytes=100, max_batch_body_bytes=1000, max_images=2) as service:
        post = service.client.post
        refused(await post(INFER, json=asking(bytes(101))), 413, "at most 100 are allowed")
        refused(await post(INFER, **binary("image", "BYTES", [1], packed([bytes(101)]))), 413, "at most 100 are allowed")
        refused(await post(INFER, content=bytes(1001)), 413, "at most 1000 are allowed")
        refused(await post("/v2/models/other/infer", content=bytes(101)), 413, "at most 100 are allowed")
        refused(await post(INFER, json=asking(CAT, CAT, CAT)), 422, "from 1 to 2")
        bomb = gzip.compress(bytes(1001))
        refused(await post(INFER, content=bomb, headers={"Content-Encoding": "gzip"}), 413, "at most 1000 are allowed")
    async with serving(small(), max_queue=1) as service:
        refused(await service.client.post(INFER, json=asking(CAT, CAT)), 422, "from 1 to 1")


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("Identity", bytes)])
async def test_compressed_requests(service: Service, coding: str, pack: Callable[[bytes], bytes]) -> None:
    request = binary("pixels", "UINT8", [1, 2, 3, 3], PIXELS.tobytes())
    headers = {**request["headers"], "Content-Encoding": coding}
    answer = await service.client.post(INFER, content=pack(request["content"]), headers=headers)
    assert [each["data"] for each in answer.json()["outputs"]] == [CAT_SCORES, CAT_LOGITS]
    assert service.parts.room.used == 0


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["gzip"], 200),
        (["identity", "gzip"], 200),
        (["GZIP ,, identity"], 200),
        (["gzip", "gzip"], 415),
        (["gzip, deflate"], 415),
        (["identity", "br"], 415),
    ],
)
async def test_several_codings(service: Service, lines: list[str], status: int) -> None:
    body = gzip.compress(json.dumps(asking(CAT)).encode())
    answer = await service.client.post(INFER, content=body, headers=[("Content-Encoding", line) for line in lines])
    assert answer.status_code == status, answer.text
    if status == 415:
        refused(answer, 415, f"the Content-Encoding '{', '.join(lines)}' is not accepted; send gzip, deflate, identity")


async def test_blanks_around_the_length_of_the_json(service: Service) -> None:
    request = binary("pixels", "UINT8", [1, 2, 3, 3], PIXELS.tobytes())
    ((name, length),) = request["headers"].items()
    answer = await service.client.post(INFER, content=request["content"], headers={name: f" {length} \t"})
    assert answer.status_code == 200, answer.text


async def test_what_comes_out_takes_room() -> None:
    async with serving(small(), max_buffered_bytes=5000, max_batch_body_bytes=1_000_000) as service:
        bomb = gzip.compress(bytes(6000))
        refused(
            await service.client.post(INFER, content=bomb, headers={"Content-Encoding": "gzip"}), 429, "bytes of bodies in flight"
        )
        assert service.parts.room.used == 0


async def test_large_json_is_read_in_a_thread(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def seen(*arguments: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return read(*arguments)

    monkeypatch.setattr("app.routes.oip.read", seen)
    padded = json.dumps(asking(CAT)) + " " * 70_000
    requests: list[dict[str, Any]] = [{"json": asking(CAT)}, {"content": padded}]
    requests.append(binary("image", "BYTES", [1], packed([CAT + bytes(70_000)])))
    for request in requests:
        assert (await service.client.post(INFER, **request)).status_code == 200
    assert threads == [True, False, True]


async def test_a_full_queue_refuses_before_the_body_is_read() -> None:
    gate = threading.Event()
    async with serving(small(gate=gate), max_queue=1) as service:
        waiting = asyncio.create_task(service.client.post(INFER, json=asking(CAT)))
        await until(service.model.entered.is_set)
        scope = http_scope(path=INFER, headers={"Content-Length": "90000000"})
        answer = await exchange(service.app, scope, [part(b"x", more=True)])
        assert answer.status_code == 429
        assert answer.received_first == 0
        assert json.loads(answer.content)["error"].startswith("the service is at its limit of 1 ")
        assert answer.headers["retry-after"]
        gate.set()
        assert (await waiting).status_code == 200


async def test_the_deadline_of_the_client_counts() -> None:
    async with serving(small(gate=threading.Event())) as service:
        for path in (INFER, f"{MODEL}/versions/1/infer"):
            refused(await service.client.post(path, json=asking(CAT), headers={"X-Timeout-Ms": "30"}), 504, "0.03 seconds")


async def test_routes_are_counted_by_their_pattern(service: Service) -> None:
    await service.client.post(INFER, json=asking(CAT, DOG))
    await service.client.post(INFER, json=asking(b"bad"))
    route = "/v2/models/{name}/infer"
    assert service.metric("sknet_requests_total", route=route, status="200") == 1
    assert service.metric("sknet_requests_total", route=route, status="422") == 1
    assert service.metric("sknet_images_total", outcome="classified") == 2
    assert service.metric("sknet_rejected_total", reason="image-undecodable") == 1


async def test_keys_hold_here_too() -> None:
    async with serving(small(), api_keys="0123456789abcdefghij") as service:
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert (await service.client.get(path)).status_code == 200
        for path in ("/v2", MODEL, f"{MODEL}/ready"):
            refused(await service.client.get(path), 401, "send a key")
        refused(await service.client.post(INFER, json=asking(CAT)), 401, "send a key")
        keyed = await service.client.post(INFER, json=asking(CAT), headers={"Authorization": "Bearer 0123456789abcdefghij"})
        assert keyed.status_code == 200


async def test_it_can_be_switched_off() -> None:
    async with serving(small(), dialects="none") as service:
        assert (await service.client.get("/v2")).status_code == 404
        assert not [path for path in service.app.openapi()["paths"] if path.startswith("/v2")]
    assert "v2" in Settings().dialects.split(",")
