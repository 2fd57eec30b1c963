"""The model repository of the Open Inference Protocol, with fakes: it does what `/models` does, in its own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from model.errors import CheckpointNotFound
from tests.app.asgi import serving, until
from tests.app.test_routes_admin import service

INDEX = "/v2/repository/index"
LOAD, UNLOAD = (f"/v2/repository/models/default/{what}" for what in ("load", "unload"))
READY = {"name": "default", "version": "1", "state": "READY", "reason": ""}
UNLOADED = {"name": "default", "version": "1", "state": "UNAVAILABLE", "reason": "the model was unloaded"}


def refused(response: httpx.Response, status: int, words: str) -> None:
    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert words in response.json()["error"]


async def test_unloaded_and_loaded_again() -> None:
    async with service() as (client, loads):
        assert (await client.post(INDEX)).json() == [READY]
        answer = await client.post(UNLOAD, json={"parameters": {"unload_dependents": True}})
        assert (answer.status_code, answer.json()) == (200, UNLOADED)
        for body in (b"{}", b'{"ready": null}'):
            assert (await client.post(INDEX, content=body)).json() == [UNLOADED]
        assert (await client.post(INDEX, json={"ready": False, "repository_name": ""})).json() == [UNLOADED]
        assert (await client.post(INDEX, json={"ready": True})).json() == []
        assert (await client.get("/v2/health/ready")).status_code == 503
        refused(await client.post("/v2/models/default/infer", json={}), 503, "the model was unloaded")
        answer = await client.post(LOAD, json={"parameters": None})
        assert (answer.status_code, answer.json()) == (200, READY)
        assert (await client.post(INDEX, json={"ready": True})).json() == [READY]
        assert loads.asked[1] == loads.asked[0]
        await until(lambda: loads.made[0].closed)


@pytest.mark.parametrize("media", ["application/json", "text/plain", None])  # the protocol's own client says none
async def test_a_checkpoint_is_loaded_by_a_parameter(tmp_path: Path, media: str | None) -> None:
    async with service(model_dir=tmp_path) as (client, loads):
        content = b'{"parameters": {"checkpoint": "other.safetensors", "unknown": 1}}'
        answer = await client.post(LOAD, content=content, headers={"Content-Type": media} if media else {})
        assert answer.json() == READY
        assert loads.asked[1].checkpoint == f"{tmp_path}/other.safetensors"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "is no valid JSON"),
        (b"[]", 400, "should be an object"),
        (b'{"parameters": []}', 400, "parameters should be an object"),
        (b'{"parameters": {"config": "{}"}}', 400, "the parameter 'config' is not taken here: name a checkpoint"),
        (b'{"parameters": {"file:1/model.onnx": "QUJD"}}', 400, "the parameter 'file:1/model.onnx' is not taken here"),
        (b'{"parameters": {"checkpoint": 1}}', 400, "checkpoint should be text"),
        (b'{"parameters": {"checkpoint": ""}}', 400, "checkpoint should be text"),
        (b'{"parameters": {"checkpoint": "' + b"x" * 1025 + b'"}}', 400, "of 1 to 1024 characters"),
        (b'{"parameters": {"checkpoint": "/etc/passwd"}}', 403, "may not be loaded over HTTP"),
        (b" " * 65_537, 413, "at most 65536 are allowed"),
    ],
)
async def test_what_cannot_be_loaded(body: bytes, status: int, words: str) -> None:
    async with service() as (client, loads):
        refused(await client.post(LOAD, content=body), status, words)
        assert len(loads.asked) == 1


async def test_what_cannot_serve_changes_nothing() -> None:
    async with service() as (client, loads):
        loads.error = CheckpointNotFound("there is no such file")
        refused(await client.post(LOAD, json={"parameters": {"checkpoint": "bundled:other"}}), 422, "there is no such file")
        assert (await client.post(INDEX)).json() == [READY]


async def test_another_model_and_a_bad_index() -> None:
    async with service() as (client, _):
        for what in ("load", "unload"):
            refused(await client.post(f"/v2/repository/models/other/{what}"), 404, "there is no model 'other'")
        refused(await client.post(INDEX, json={"ready": 1}), 400, "ready should be true or false")
        refused(await client.get(INDEX), 405, "allowed: POST")


@pytest.mark.parametrize(("settings", "status"), [({}, 403), ({"api_keys": "0123456789abcdefghij"}, 401)])
async def test_only_whoever_may_administer(settings: dict[str, Any], status: int) -> None:
    async with serving(**settings) as running:
        for path in (LOAD, UNLOAD):
            refused(await running.client.post(path), status, "keys" if status == 403 else "key")
        assert (await running.client.get("/readyz")).status_code == 200
    async with service() as (client, loads):
        foreign = {"Origin": "https://elsewhere.example"}
        refused(await client.post(LOAD, content=b"{}", headers=foreign), 403, "pages of other origins")
        assert len(loads.asked) == 1
