"""What SageMaker asks of a container: `/ping` and `/invocations`."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.app.asgi import problem, serving
from tests.fakes import FakeModel

KEYS = "web:predict:web-key-of-16-characters,ops:admin:ops-key-of-16-characters"
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
TEXT = base64.b64encode(b"\x02rest").decode()


async def test_ping_says_whether_a_model_serves() -> None:
    async with serving() as service:
        got = await service.client.get("/ping")
        assert (got.status_code, got.json()) == (200, {"ready": True, "reasons": []})
        service.parts.classifier.drain()
        got = await service.client.get("/ping")
        assert (got.status_code, got.json()["ready"], got.headers["retry-after"]) == (503, False, "1")
        problem(await service.client.post("/ping"), 405, "method-not-allowed")


async def test_ping_needs_no_key_and_invocations_do() -> None:
    async with serving(api_keys=KEYS) as service:
        assert (await service.client.get("/ping")).status_code == 200
        problem(await service.client.post("/invocations", content=b"x"), 401, "unauthorised")
        ops = {"X-API-Key": "ops-key-of-16-characters"}
        problem(await service.client.post("/invocations", content=b"x", headers=ops), 403, "scope-forbidden")
        web = {"X-API-Key": "web-key-of-16-characters"}
        assert (await service.client.post("/invocations", content=b"x", headers=web)).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        {"content": b"\x02rest"},
        {"content": b"\x02rest", "headers": {"Content-Type": "image/jpeg"}},
        {"content": b"\x02rest", "headers": {"Content-Type": "application/x-image"}},
        {"content": b"\x02rest", "headers": {"Content-Type": "application/octet-stream"}},
        {"files": {"file": ("a.jpg", b"\x02rest")}},
        {"json": {"image": TEXT}},
        {"json": {"image": f"data:image/jpeg;base64,{TEXT}"}},
    ],
)
async def test_every_form_is_answered_as_the_native_route_does(sent: dict[str, Any]) -> None:
    async with serving() as service:
        native = await service.client.post("/classify", content=b"\x02rest", headers={"Content-Type": "image/jpeg"})
        got = await service.client.post("/invocations", **sent)
        assert (got.status_code, got.headers["content-type"], got.json()) == (200, "application/json", native.json())
        assert service.metric("sknet_requests_total", route="/invocations", status="200") == 1
        assert "inference;dur=" in got.headers["server-timing"]


@pytest.mark.parametrize(
    ("attributes", "query"),
    [
        ("top_k=2", "top_k=2"), ("top_k=3,min_score=0.2", "top_k=3&min_score=0.2"), (" top_k = 2 , min_score=0 ", "top_k=2"),
        ("explain=kernel_attention", "explain=kernel_attention"), ("", ""), ("c000b4f9-df62-4c85-a0bf-7c525f9104a4", ""),
        ("accept_eula=true", ""), ("Trace ID: 5,,=,x=y=z,top_k=1", "top_k=1"), ("TOP_K=0", ""),
    ],
)  # fmt: skip
async def test_parameters_come_as_custom_attributes(attributes: str, query: str) -> None:
    async with serving() as service:
        headers = {"Content-Type": "image/png"}
        native = await service.client.post(f"/classify?{query}", content=b"\x02", headers=headers)
        got = await service.client.post("/invocations?top_k=4", content=b"\x02", headers=headers | {ATTRIBUTES: attributes})
        assert (native.status_code, got.status_code) == (200, 200)
        assert got.json() == native.json()


@pytest.mark.parametrize(
    ("attributes", "query"),
    [
        ("top_k=0", "top_k=0"), ("top_k=many", "top_k=many"), ("top_k=", "top_k="), ("top_k=100000", "top_k=100000"),
        ("min_score=2", "min_score=2"), ("min_score=nan", "min_score=nan"), ("explain=all", "explain=all"),
    ],
)  # fmt: skip
async def test_those_that_cannot_be_are_refused_as_the_native_route_does(attributes: str, query: str) -> None:
    async with serving() as service:
        headers = {"Content-Type": "image/png"}
        native = await service.client.post(f"/classify?{query}", content=b"\x02", headers=headers)
        got = await service.client.post("/invocations", content=b"\x02", headers=headers | {ATTRIBUTES: attributes})
        assert problem(got, 422, "invalid-parameter") == native.json()


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (None, 200), ("", 200), ("*/*", 200), ("application/*", 200), ("application/json", 200), ("application/json;q=0.1", 200),
        ("text/csv, application/json", 200), ("application/json; verbose=true", 200), ("APPLICATION/JSON", 200),
        ("text/csv", 406), ("application/jsonlines", 406), ("application/json;q=0", 406), ("image/png", 406),
    ],
)  # fmt: skip
async def test_the_answer_is_json_or_none(accept: str | None, status: int) -> None:
    async with serving() as service:
        if accept is None:
            del service.client.headers["accept"]
        got = await service.client.post("/invocations", content=b"\x02", headers={} if accept is None else {"Accept": accept})
        assert got.status_code == status
        if status == 406:
            assert problem(got, 406, "not-acceptable")["allowed"] == ["application/json"]
            assert service.model.prepared == []


async def test_what_cannot_be_answered_is_a_problem() -> None:
    async with serving(FakeModel(run_s=0.2), max_body_bytes=500) as service:
        post = service.client.post
        problem(await post("/invocations"), 400, "malformed-request")
        problem(await post("/invocations", content=b"bad"), 422, "image-undecodable")
        problem(await post("/invocations", content=b"x" * 501), 413, "body-too-large")
        problem(await post("/invocations", content=b"x", headers={"Content-Type": "text/csv"}), 415, "unsupported-media-type")
        problem(await post("/invocations", json={"url": "https://example.org/a.jpg"}), 403, "source-forbidden")
        problem(await post("/invocations", content=b"x", headers={"X-Timeout-Ms": "20"}), 504, "deadline-passed")
        problem(await service.client.get("/invocations"), 405, "method-not-allowed")
        # A type that only a raw body of this route may have is none at the native one.
        for headers in ({}, {"Content-Type": "application/x-image"}):
            problem(await post("/classify", content=b"x", headers=headers), 415, "unsupported-media-type")
        await service.parts.classifier.close()
        problem(await post("/invocations", content=b"x"), 503, "not-ready")


async def test_switched_off_neither_is_there() -> None:
    async with serving(dialects="huggingface,vertex") as service:
        problem(await service.client.get("/ping"), 404, "not-found")
        problem(await service.client.post("/invocations", content=b"x"), 404, "not-found")
        assert "SageMaker" not in str(service.app.openapi())
