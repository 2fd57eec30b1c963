"""Hugging Face's image classification at `/hf`, and at `/` where the settings say so."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from app.context import RequestContext
from tests.app.asgi import exchange, http_scope, part, problem, serving
from tests.fakes import LABELS, FakeModel, score

KEYS = "web:predict:web-key-of-16-characters,ops:admin:ops-key-of-16-characters"
ROOT = "v2,huggingface,huggingface-root"


def ranking(first: int, count: int, function: Any = "softmax") -> list[dict[str, Any]]:
    """What the fake model says of an image whose first byte is this."""
    return [{"label": LABELS[(first + n) % len(LABELS)].name, "score": pytest.approx(score(n, function))} for n in range(count)]


def as_json(data: bytes, **parameters: Any) -> dict[str, Any]:
    text = base64.b64encode(data).decode()
    return {"inputs": text, "parameters": parameters} if parameters else {"inputs": text}


def error(response: httpx.Response, status: int, words: str) -> None:
    """Hold that it is an error as that client reads it, and nothing else."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), response.text
    assert list(response.json()) == ["error"]
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    "media", [None, "image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain", "nonsense"]
)
async def test_a_raw_body_is_an_image_whatever_its_type(media: str | None) -> None:
    async with serving() as service:
        headers = {"X-Wait-For-Model": "true", "X-Use-Cache": "0"} | ({} if media is None else {"Content-Type": media})
        got = await service.client.post("/hf", content=b"\x01rest", headers=headers)
        assert (got.status_code, got.headers["content-type"], got.json()) == (200, "application/json", ranking(1, 5))
        assert "content-type" in got.request.headers or media is None
        assert service.model.prepared == [b"\x01rest"]
        assert "inference;dur=" in got.headers["server-timing"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (as_json(b"\x02"), ranking(2, 5)), (as_json(b"\x02", top_k=2), ranking(2, 2)),
        (as_json(b"\x02", top_k=None, function_to_apply=None), ranking(2, 5)),
        (as_json(b"\x02", top_k=1000), ranking(2, len(LABELS))),
        (as_json(b"\x02", function_to_apply="softmax", top_k=1), ranking(2, 1)),
        (as_json(b"\x02", function_to_apply="sigmoid", top_k=3), ranking(2, 3, "sigmoid")),
        (as_json(b"\x02", function_to_apply="none"), ranking(2, 5, "none")),
        (as_json(b"\x02") | {"parameters": None}, ranking(2, 5)), (as_json(b"\x02") | {"parameters": {}}, ranking(2, 5)),
        (as_json(b"\x02") | {"options": {"wait_for_model": True}, "anything": 1}, ranking(2, 5)),
        ({"inputs": "data:image/png;base64,Ag=="}, ranking(2, 5)),
    ],
)  # fmt: skip
async def test_json_with_parameters(sent: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    async with serving() as service:
        got = await service.client.post("/hf", json=sent)
        assert (got.status_code, got.json()) == (200, expected)


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        ({}, 400, "inputs is missing"), ([], 400, "the body should be an object"), ({"inputs": 1}, 400, "inputs should be text"),
        ({"inputs": ["AA=="]}, 400, "inputs should be text"), ({"inputs": "@"}, 400, "no valid base64"),
        ({"inputs": ""}, 400, "the image is empty"), (as_json(b"bad"), 422, ""),
        (as_json(b"x") | {"parameters": []}, 400, "parameters should be an object"),
        (as_json(b"x", topk=3), 400, "parameters.topk is not known here"),
        (as_json(b"x", top_k="many"), 400, "parameters.top_k should be a whole number"),
        (as_json(b"x", top_k=1.5), 400, "parameters.top_k should be a whole number"),
        (as_json(b"x", top_k=False), 400, "parameters.top_k should be a whole number"),
        (as_json(b"x", top_k=0), 422, "a whole number from 1 to"), (as_json(b"x", top_k=-1), 422, "a whole number from 1 to"),
        (as_json(b"x", function_to_apply="tanh"), 422, "it may be 'softmax', 'sigmoid' or 'none'"),
        ({"inputs": "https://example.org/cat.jpg"}, 403, "images by url are switched off"),
    ],
)  # fmt: skip
async def test_what_cannot_be_answered_is_an_error_in_its_words(sent: Any, status: int, words: str) -> None:
    async with serving() as service:
        error(await service.client.post("/hf", json=sent), status, words)


async def test_errors_of_every_layer_are_in_its_words() -> None:
    async with serving(max_body_bytes=500) as service:
        post = service.client.post
        error(await post("/hf"), 400, "the body is empty")
        error(await post("/hf", content=b"{", headers={"Content-Type": "application/json"}), 400, "is no valid JSON")
        error(await post("/hf", content=b"x" * 501), 413, "at most 500 are allowed")
        error(await post("/hf", files={"file": b"x"}), 415, "multipart/form-data")
        error(await post("/hf", content=b"x", headers={"X-Timeout-Ms": "soon"}), 422, "X-Timeout-Ms")
        error(await service.client.get("/hf"), 405, "GET is not allowed here")
        await service.parts.classifier.close()
        error(await post("/hf", content=b"x"), 503, "not ready")


async def test_images_by_address_where_the_settings_allow_them() -> None:
    asked: list[str] = []

    async def fetch(url: str, context: RequestContext) -> bytes:
        asked.append(url)
        return b"\x03"

    async with serving(allow_urls=True, make_fetch=lambda *_: fetch) as service:
        got = await service.client.post("/hf", json={"inputs": "HTTPS://example.org/cat.jpg"})
        assert (got.status_code, got.json(), asked) == (200, ranking(3, 5), ["HTTPS://example.org/cat.jpg"])


async def test_it_needs_the_scope_and_says_so_in_its_words() -> None:
    async with serving(api_keys=KEYS, dialects=ROOT) as service:
        for path in ("/hf", "/"):
            got = await service.client.post(path, content=b"x")
            error(got, 401, "send a key")
            assert got.headers["www-authenticate"] == 'Bearer realm="sknet"'
            ops = {"Authorization": "Bearer ops-key-of-16-characters"}
            error(await service.client.post(path, content=b"x", headers=ops), 403, "needs the scope predict")
            web = {"Authorization": "Bearer web-key-of-16-characters"}
            assert (await service.client.post(path, content=b"x", headers=web)).status_code == 200
        assert (await service.client.get("/")).headers["content-type"].startswith("text/html")


async def test_the_root_is_taken_over_only_where_the_settings_say_so() -> None:
    async with serving() as service:
        assert (await service.client.post("/", content=b"\x01")).status_code == 405
        assert "/" not in service.app.openapi()["paths"]
    async with serving(dialects="huggingface-root", max_body_bytes=50) as service:
        assert (await service.client.post("/", content=b"\x01")).json() == ranking(1, 5)
        assert (await service.client.post("/", json=as_json(b"\x01", top_k=1))).json() == ranking(1, 1)
        error(await service.client.post("/", content=b"x" * 51), 413, "at most 50 are allowed")
        assert (await service.client.get("/")).headers["content-type"].startswith("text/html")
        assert (await service.client.post("/hf", content=b"\x01")).status_code == 404
        assert list(service.app.openapi()["paths"]["/"]) == ["post"]


async def test_at_both_places_it_has_one_head_in_the_document() -> None:
    async with serving(dialects=ROOT) as service:
        document = service.app.openapi()
        assert [tag["name"] for tag in document["tags"]].count("Hugging Face") == 1
        assert {document["paths"][path]["post"]["operationId"] for path in ("/", "/hf")} == {"huggingface", "huggingface_root"}


async def test_switched_off_it_is_not_there() -> None:
    for dialects in ("none", "v2,sagemaker,vertex"):
        async with serving(dialects=dialects) as service:
            problem(await service.client.post("/hf", content=b"x"), 404, "not-found")
            assert "Hugging Face" not in str(service.app.openapi())


async def test_it_is_counted_and_refused_before_its_body_as_the_native_route_is() -> None:
    async with serving() as service:
        await service.client.post("/hf", content=b"x")
        assert service.metric("sknet_requests_total", route="/hf", status="200") == 1
        assert service.metric("sknet_images_total", outcome="classified") == 1
        await service.parts.classifier.close()
        got = await exchange(service.app, http_scope("POST", "/hf", headers={"Content-Length": "400000"}), [part(b"", more=True)])
        assert (got.status_code, got.received_first) == (503, 0)


async def test_a_deadline_can_be_lowered() -> None:
    async with serving(FakeModel(run_s=0.2)) as service:
        got = await service.client.post("/hf", content=b"x", headers={"X-Timeout-Ms": "20"})
        error(got, 504, "the deadline of 0.02 seconds passed")
