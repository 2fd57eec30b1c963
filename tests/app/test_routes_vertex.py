"""What Vertex AI asks of a custom container, at the paths that it says."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from app.errors import Overloaded
from model.errors import DecoderUnavailable
from tests.app.asgi import exchange, http_scope, part, problem, serving
from tests.fakes import LABELS, FakeModel, score

KEYS = "web:predict:web-key-of-16-characters,ops:admin:ops-key-of-16-characters"
PREDICT = "/vertex/predict"


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def body(*images: bytes, **parameters: Any) -> dict[str, Any]:
    return {"instances": [b64(image) for image in images]} | ({"parameters": parameters} if parameters else {})


def ranking(first: int, count: int) -> list[dict[str, Any]]:
    """What the fake model says of an image whose first byte is this."""
    order = [(first + n) % len(LABELS) for n in range(count)]
    return [
        {"index": i, "label": LABELS[i].name, "score": pytest.approx(score(n)), "wnid": LABELS[i].wnid}
        for n, i in enumerate(order)
    ]  # fmt: skip


async def test_health_says_whether_a_model_serves() -> None:
    async with serving() as service:
        got = await service.client.get("/vertex/health")
        assert (got.status_code, got.json()) == (200, {"ready": True, "reasons": []})
        service.parts.classifier.drain()
        assert (await service.client.get("/vertex/health")).status_code == 503


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (body(b"\x01"), [ranking(1, 5)]), (body(b"\x01", b"\x02", b"\x01"), [ranking(1, 5), ranking(2, 5), ranking(1, 5)]),
        (body(b"\x01", b"\x02", top_k=2), [ranking(1, 2), ranking(2, 2)]), (body(b"\x01", top_k=2.0), [ranking(1, 2)]),
        (body(b"\x01", min_score=0.2), [ranking(1, 2)]),
        (body(b"\x01", min_score=1), [[]]), (body(b"\x01") | {"parameters": None}, [ranking(1, 5)]),
        (body(b"\x01") | {"parameters": {}}, [ranking(1, 5)]),
        ({"instances": [{"image": b64(b"\x03")}, b64(b"\x02")]}, [ranking(3, 5), ranking(2, 5)]),
        ({"instances": [{"b64": "data:image/png;base64,AQ=="}]}, [ranking(1, 5)]),
    ],
)  # fmt: skip
async def test_a_ranking_for_each_instance_in_order(sent: dict[str, Any], expected: list[Any]) -> None:
    async with serving() as service:
        got = await service.client.post(PREDICT, json=sent)
        assert (got.status_code, got.headers["content-type"], got.json()) == (200, "application/json", {"predictions": expected})
        assert service.metric("sknet_requests_total", route=PREDICT, status="200") == 1
        assert service.metric("sknet_images_total", outcome="classified") == len(expected)
        assert "inference;dur=" in got.headers["server-timing"]


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        ({"b64": "@"}, "no valid base64"), ({"b64": ""}, "the image is empty"), (b64(b"bad"), "the bytes are no image"),
        (b64(b"huge"), "60000000 pixels"), (b64(b"x" * 301), "at most 300 are allowed"),
        ({}, 'an instance should be {"b64": ...} or {"image": {"b64": ...}}'),
        ({"b64": None}, "an instance should be"), (b64(b"x") | {"image": b64(b"x")}, "an instance should be"),
    ],
)  # fmt: skip
async def test_an_instance_that_cannot_be_used_fails_them_all_by_name(instance: dict[str, Any], words: str) -> None:
    async with serving(max_body_bytes=300, max_batch_body_bytes=2000) as service:
        got = await service.client.post(PREDICT, json={"instances": [b64(b"\x01"), instance, b64(b"\x02")]})
        found = problem(got, 422, "image-unusable")
        assert found["parameter"] == "instances[1]"
        assert found["detail"].startswith("instances[1]: ")
        assert words in found["detail"]


@pytest.mark.parametrize(
    ("sent", "status", "slug", "words"),
    [
        ({}, 400, "malformed-request", "instances is missing"), ([], 400, "malformed-request", "the body should be an object"),
        ({"instances": []}, 400, "malformed-request", "there are no instances"),
        ({"instances": {}}, 400, "malformed-request", "instances should be a list"),
        ({"instances": ["AA=="]}, 400, "malformed-request", "instances.0 should be an object"),
        ({"instances": [{"b64": 1}]}, 400, "malformed-request", "instances.0.b64 should be text"),
        ({"instances": [{"b64": "AA==", "key": 1}]}, 400, "malformed-request", "instances.0.key is not known here"),
        ({"instances": [{"image": "AA=="}]}, 400, "malformed-request", "instances.0.image should be an object"),
        (body(b"x", topk=1), 400, "malformed-request", "parameters.topk is not known here"),
        (body(b"x", top_k=1.5), 400, "malformed-request", "parameters.top_k should be a whole number"),
        (body(b"x", top_k=True), 400, "malformed-request", "parameters.top_k should be a whole number"),
        (body(b"x", top_k="3"), 400, "malformed-request", "parameters.top_k should be a whole number"),
        (body(b"x", min_score=True), 400, "malformed-request", "parameters.min_score should be a number"),
        (body(b"x", min_score="0.5"), 400, "malformed-request", "parameters.min_score should be a number"),
        (body(b"x", min_score=None), 400, "malformed-request", "parameters.min_score should be a number"),
        (body(b"x", top_k=0), 422, "invalid-parameter", "a whole number from 1 to"),
        (body(b"x", top_k=1000), 422, "invalid-parameter", "a whole number from 1 to"),
        (body(b"x", min_score=-1), 422, "invalid-parameter", "parameters.min_score is '-1': it may be a number from 0 to 1"),
        (body(b"x", min_score=1.1), 422, "invalid-parameter", "it may be a number from 0 to 1"),
        (body(*[b"x"] * 4), 422, "invalid-parameter", "number of instances is '4': it may be a whole number from 1 to 3"),
        (body(b"poison"), 500, "internal-error", "The fault is ours"),
    ],
)  # fmt: skip
async def test_what_cannot_be_answered_is_a_problem(sent: Any, status: int, slug: str, words: str) -> None:
    async with serving(max_images=3) as service:
        assert words in problem(await service.client.post(PREDICT, json=sent), status, slug)["detail"]


async def test_errors_of_every_layer() -> None:
    async with serving(FakeModel(run_s=0.2), max_body_bytes=100, max_batch_body_bytes=500, max_queue=2) as service:
        post = service.client.post
        problem(await post(PREDICT), 400, "malformed-request")
        problem(await post(PREDICT, content=b"x", headers={"Content-Type": "image/png"}), 415, "unsupported-media-type")
        problem(await post(PREDICT, content=b"x" * 501), 413, "body-too-large")
        problem(await post(PREDICT, json=body(b"x", b"x", b"x")), 422, "invalid-parameter")  # would never be admitted
        problem(await post(PREDICT, json=body(b"x"), headers={"X-Timeout-Ms": "20"}), 504, "deadline-passed")
        problem(await service.client.get(PREDICT), 405, "method-not-allowed")
        await service.parts.classifier.close()
        got = await exchange(service.app, http_scope("POST", PREDICT, headers={"Content-Length": "400"}), [part(b"", more=True)])
        problem(got, 503, "not-ready")


@pytest.mark.parametrize(
    ("error", "status", "slug", "retry_after"),
    [(Overloaded("images", 2, 7), 429, "overloaded", "7"), (DecoderUnavailable("busy", 3), 503, "decoder-unavailable", "3")],
)
async def test_what_one_instance_is_not_to_blame_for_says_when_to_come_back(
    error: Exception, status: int, slug: str, retry_after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as service:

        async def told(*_: object) -> tuple[None, list[Exception]]:  # as where one image found no place, with remembered answers
            return None, [error]

        monkeypatch.setattr(service.parts.classifier, "tell_many", told)
        got = await service.client.post(PREDICT, json=body(b"\x01"))
        assert "parameter" not in problem(got, status, slug)
        assert got.headers["retry-after"] == retry_after


async def test_it_is_where_the_settings_say() -> None:
    route = "/v1/endpoints/1/deployedModels/2"
    async with serving(vertex_health_route=route, vertex_predict_route=f"{route}:predict", max_batch_body_bytes=99) as service:
        assert (await service.client.get(route)).status_code == 200
        got = await service.client.post(f"{route}:predict", json=body(b"\x01", top_k=1))
        assert (got.status_code, got.json()) == (200, {"predictions": [ranking(1, 1)]})
        problem(await service.client.post(f"{route}:predict", content=b"x" * 100), 413, "body-too-large")
        problem(await service.client.get("/vertex/health"), 404, "not-found")
        problem(await service.client.post(PREDICT, json=body(b"\x01")), 404, "not-found")
        assert service.metric("sknet_requests_total", route=f"{route}:predict", status="200") == 1


async def test_one_path_can_be_both_and_a_probe_of_the_service_can_be_its_health() -> None:
    async with serving(vertex_health_route="/model", vertex_predict_route="/model") as service:
        assert (await service.client.get("/model")).status_code == 200
        assert (await service.client.post("/model", json=body(b"\x01"))).status_code == 200
    async with serving(vertex_health_route="/readyz") as service:
        assert (await service.client.get("/readyz")).status_code == 200
        assert service.app.openapi()["paths"]["/readyz"]["get"]["tags"] == ["service"]


@pytest.mark.parametrize(("dialects", "tag"), [("vertex", "Vertex AI"), ("sagemaker,vertex", "SageMaker")])
async def test_ping_can_be_its_health_and_is_there_once(dialects: str, tag: str) -> None:
    async with serving(api_keys=KEYS, dialects=dialects, vertex_health_route="/ping") as service:
        assert (await service.client.get("/ping")).status_code == 200
        assert service.app.openapi()["paths"]["/ping"]["get"]["tags"] == [tag]


async def test_health_needs_no_key_and_predicting_does() -> None:
    async with serving(api_keys=KEYS) as service:
        assert (await service.client.get("/vertex/health")).status_code == 200
        problem(await service.client.post(PREDICT, json=body(b"\x01")), 401, "unauthorised")
        problem(await service.client.post("/vertex/health"), 401, "unauthorised")
        ops = {"X-API-Key": "ops-key-of-16-characters"}
        problem(await service.client.post(PREDICT, json=body(b"\x01"), headers=ops), 403, "scope-forbidden")
        web = {"X-API-Key": "web-key-of-16-characters"}
        assert (await service.client.post(PREDICT, json=body(b"\x01"), headers=web)).status_code == 200


async def test_switched_off_neither_is_there() -> None:
    async with serving(dialects="huggingface,sagemaker") as service:
        problem(await service.client.get("/vertex/health"), 404, "not-found")
        problem(await service.client.post(PREDICT, json=body(b"\x01")), 404, "not-found")
        assert "Vertex" not in str(service.app.openapi())
