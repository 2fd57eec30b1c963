"""`POST /models/{name}/load` and `/unload`, with models that are fakes: answers, refusals, and what the service then is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.classifier import Model
from app.main import create_app
from app.settings import Settings
from model.errors import CheckpointNotFound, EngineError
from tests.app.asgi import client_of, exchange, http_scope, part, problem, until
from tests.fakes import SECRET, FakeModel, fake_info

LOAD, UNLOAD = "/models/default/load", "/models/default/unload"
Load = Callable[[Settings], Model]


class Loads:
    """Makes a fake for each load, and remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[Settings] = []
        self.made: list[FakeModel] = []
        self.error: Exception | None = None
        self.gate: threading.Event | None = None

    def __call__(self, settings: Settings) -> FakeModel:
        self.asked.append(settings)
        if self.gate is not None:
            self.gate.wait(10)
        if self.error is not None:
            raise self.error
        model = FakeModel(info=replace(fake_info(digest=f"{len(self.asked):064d}"), checkpoint=settings.checkpoint))
        self.made.append(model)
        return model


@asynccontextmanager
async def service(**settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Loads]]:
    loads = Loads()
    app = create_app(Settings(**settings, open_admin=True), load=loads)
    async with app.router.lifespan_context(app), client_of(app) as client:
        try:
            yield client, loads
        finally:
            if loads.gate is not None:
                loads.gate.set()


async def test_another_model_is_told_like_any(tmp_path: Path) -> None:
    async with service(model_dir=tmp_path, labels_file=tmp_path / "names", variant="sknet50", checkpoint_sha256="a" * 64) as (
        client,
        loads,
    ):
        answer = await client.post(LOAD, json={"checkpoint": "other.safetensors"})
        assert answer.status_code == 200
        assert answer.json() == (await client.get("/models/default")).json()
        assert answer.json()["digest"] == loads.made[1].info.digest
        asked = loads.asked[1]
        assert asked.checkpoint == f"{tmp_path}/other.safetensors"
        # What the settings say of their own checkpoint is not true of another.
        assert (asked.labels_file, asked.variant, asked.checkpoint_sha256) == (None, None, None)
        assert asked.model_copy(update={"checkpoint": "x"}) == loads.asked[0].model_copy(
            update={"checkpoint": "x", "labels_file": None, "variant": None, "checkpoint_sha256": None}
        )
        await until(lambda: loads.made[0].closed)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"checkpoint": null}', b" \n", b'{"checkpoint": "bundled:cifar10"}'])
async def test_the_configured_checkpoint_is_loaded_once_more_with_all_its_settings(body: bytes) -> None:
    async with service(checkpoint_sha256="a" * 64) as (client, loads):
        assert (await client.post(LOAD, content=body, headers={"Content-Type": "application/json"})).status_code == 200
        assert loads.asked[1] == loads.asked[0]


async def test_without_a_body_no_media_type_is_needed() -> None:
    async with service() as (client, loads):
        assert (await client.post(LOAD)).status_code == 200
        assert len(loads.asked) == 2


async def test_a_checkpoint_that_cannot_serve_changes_nothing() -> None:
    async with service() as (client, loads):
        for error in (CheckpointNotFound("there is no such file"), EngineError("its answers deviate")):
            loads.error = error
            body = problem(await client.post(LOAD, json={"checkpoint": "bundled:other"}), 422, "checkpoint-refused")
            assert body["detail"] == str(error)
        loads.error = RuntimeError(SECRET)
        assert SECRET not in str(problem(await client.post(LOAD), 500, "internal-error"))
        model = (await client.get("/models/default")).json()
        assert (model["state"], model["digest"]) == ("ready", loads.made[0].info.digest)
        assert (await client.post("/classify", files={"file": b"\x02"})).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


async def test_references_that_are_not_allowed_load_nothing() -> None:
    async with service() as (client, loads):
        body = problem(await client.post(LOAD, json={"checkpoint": "/etc/passwd"}), 403, "reference-forbidden")
        assert body["value"] == "/etc/passwd"
        assert "bundled:NAME" in body["allowed"]
        assert len(loads.asked) == 1


@pytest.mark.parametrize(
    ("content", "media", "status", "slug"),
    [
        (b"{", "application/json", 400, "malformed-request"),
        (b'{"checkpoint": 1}', "application/json", 400, "malformed-request"),
        (b'{"checkpoint": ""}', "application/json", 400, "malformed-request"),
        (b'{"other": "x"}', "application/json", 400, "malformed-request"),
        (b"[]", "application/json", 400, "malformed-request"),
        (b'{"checkpoint": "' + b"x" * 2000 + b'"}', "application/json", 400, "malformed-request"),
        (b'{"checkpoint": "bundled:cifar10"}', "text/plain", 415, "unsupported-media-type"),
        (b"x" * 65_537, "application/json", 413, "body-too-large"),
    ],
)
async def test_malformed_requests(content: bytes, media: str, status: int, slug: str) -> None:
    async with service() as (client, loads):
        problem(await client.post(LOAD, content=content, headers={"Content-Type": media}), status, slug)
        assert len(loads.asked) == 1


@pytest.mark.parametrize("path", ["/models/other/load", "/models/other/unload"])
async def test_no_such_model(path: str) -> None:
    async with service() as (client, _):
        problem(await client.post(path), 404, "model-not-found")
        problem(await client.get(path), 405, "method-not-allowed")


async def test_unloaded_and_loaded_again() -> None:
    async with service() as (client, loads):
        answer = await client.post(UNLOAD)
        assert (answer.status_code, answer.json()) == (200, {"name": "default", "state": "unloaded"})
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["the model was unloaded"])
        assert (await client.get("/livez")).status_code == 200
        body = problem(await client.post("/classify", files={"file": b"\x02"}), 503, "not-ready")
        assert body["reasons"] == ["the model was unloaded"]
        problem(await client.get("/models/default"), 503, "not-ready")
        assert (await client.post(LOAD)).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post("/classify", files={"file": b"\x02"})).status_code == 200
        await until(lambda: loads.made[0].closed)


async def test_a_third_load_is_told_to_come_back() -> None:
    async with service() as (client, loads):
        loads.gate = threading.Event()
        two = [asyncio.create_task(client.post(LOAD)) for _ in range(2)]
        await until(lambda: len(loads.asked) == 2)
        await asyncio.sleep(0.05)
        answer = await client.post(LOAD)
        problem(answer, 429, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        loads.gate.set()
        assert [(await task).status_code for task in two] == [200, 200]


async def test_a_load_takes_longer_than_the_deadline_of_images() -> None:
    async with service(deadline_s=0.2) as (client, loads):
        loads.gate = threading.Event()
        loading = asyncio.create_task(client.post(LOAD, headers={"X-Timeout-Ms": "1"}))
        await asyncio.sleep(0.5)
        assert not loading.done()
        loads.gate.set()
        assert (await loading).status_code == 200


async def test_a_client_that_leaves_does_not_stop_the_load() -> None:
    loads = Loads()
    app = create_app(Settings(open_admin=True), load=loads)
    async with app.router.lifespan_context(app), client_of(app) as client:
        loads.gate, leave = threading.Event(), asyncio.Event()
        scope = http_scope(path=LOAD, headers={"Content-Type": "application/json"})
        asking = asyncio.create_task(exchange(app, scope, [part(b"{}")], leave=leave))
        await until(lambda: len(loads.asked) == 2)
        leave.set()
        assert not (await asking).started
        loads.gate.set()
        await until(lambda: len(loads.made) == 2 and loads.made[0].closed)
        assert (await client.get("/models/default")).json()["digest"] == loads.made[1].info.digest
