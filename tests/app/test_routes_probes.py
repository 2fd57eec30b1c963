"""`/livez`, `/readyz`, `/healthz`, `/metrics`: while loading, ready, failed and draining."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.main import create_app
from app.settings import Settings
from model.errors import CheckpointNotFound
from tests.app.asgi import client_of, problem, serving, until
from tests.fakes import FakeModel


async def test_ready(client: httpx.AsyncClient) -> None:
    live = await client.get("/livez")
    assert (live.status_code, live.json()) == (200, {"status": "alive"})
    for path in ("/readyz", "/healthz"):
        response = await client.get(path)
        assert (response.status_code, response.json()) == (200, {"ready": True, "reasons": []})
        assert "retry-after" not in response.headers


async def not_ready(client: httpx.AsyncClient, reason: str) -> None:
    """Alive, and says why nothing is served; work is refused with the same reason."""
    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/metrics")).status_code == 200
    for path in ("/readyz", "/healthz"):
        response = await client.get(path)
        assert (response.status_code, response.json()) == (503, {"ready": False, "reasons": [reason]})
        assert int(response.headers["retry-after"]) >= 1
    answers = [
        await client.post("/classify", files={"file": b"x"}),
        await client.post("/classify/batch", files={"files": b"x"}),
        await client.get("/models"),
        await client.get("/models/default"),
    ]
    for response in answers:
        assert problem(response, 503, "not-ready")["reasons"] == [reason]
        assert int(response.headers["retry-after"]) >= 1


async def test_loading_then_ready_then_draining() -> None:
    go, model = threading.Event(), FakeModel()
    app = create_app(Settings(), load=lambda _: (go.wait(5), model)[1], on_failure=lambda error: pytest.fail(str(error)))
    try:
        async with app.router.lifespan_context(app), client_of(app) as client:
            await not_ready(client, "the model is being loaded")
            go.set()
            await until(lambda: app.state.services.classifier.state == "ready")
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.post("/classify", files={"file": b"x"})).status_code == 200
            await app.state.services.classifier.close()
            await not_ready(client, "the service is shutting down")
    finally:
        go.set()
    assert model.closed


async def test_failed() -> None:
    def load(_: Settings) -> FakeModel:
        raise CheckpointNotFound("there is nothing at nowhere.safetensors")

    told: list[Exception] = []
    app = create_app(Settings(), load=load, on_failure=told.append)
    async with app.router.lifespan_context(app), client_of(app) as client:
        await until(lambda: told)
        await not_ready(client, "there is nothing at nowhere.safetensors")
    assert [type(error) for error in told] == [CheckpointNotFound]


async def test_probes_answer_while_the_queue_is_full() -> None:
    async with serving(FakeModel(gate=threading.Event()), max_queue=1) as service:
        work = asyncio.create_task(service.client.post("/classify", files={"file": b"x"}))
        await until(service.model.entered.is_set)
        refused = await service.client.post("/classify", files={"file": b"x"})
        assert problem(refused, 429, "overloaded")["limit"] == 1
        assert int(refused.headers["retry-after"]) >= 1
        for path in ("/livez", "/readyz", "/healthz", "/metrics", "/models"):
            assert (await service.client.get(path)).status_code == 200
        assert service.metric("sknet_queue_size") == 1
        assert service.model.gate is not None
        service.model.gate.set()
        assert (await work).status_code == 200


async def test_metrics_are_what_prometheus_reads(client: httpx.AsyncClient) -> None:
    await client.post("/classify", files={"file": b"x"})
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(response.text)}
    assert {"sknet_requests", "sknet_request_duration_seconds", "sknet_queue_size", "sknet_model_info"} <= names
