"""`/models`: everything there is to say of what serves."""

from __future__ import annotations

import httpx

from tests.app.asgi import problem, serving
from tests.fakes import LABELS


async def test_one_model(client: httpx.AsyncClient) -> None:
    body = (await client.get("/models/default")).json()
    choice = {"value": "fake", "reason": "a test said so"}
    assert body["preprocess"].pop("description") == "nothing is done to it"
    assert body == {
        "name": "default",
        "state": "ready",
        "variant": "skfake",
        "arguments": {"block": "basic", "layers": [1, 1]},
        "parameters": 7,
        "gmacs": 0.5,
        "preprocess": {
            "size": [224, 224],
            "crop_pct": 0.875,
            "crop_mode": "center",
            "interpolation": "bicubic",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
        "labels": [{"index": i, "label": label.name, "wnid": label.wnid} for i, label in enumerate(LABELS)],
        "engine": choice,
        "device": choice,
        "dtype": choice,
        "memory_format": choice,
        "threads": choice,
        "streams": {"value": "1", "reason": "a test said so"},
        "batch_size": 8,
        "deviation": None,
        "images_per_second": None,
        "checkpoint": "bundled:fake",
        "digest": "sha256:" + "0" * 64,
        "licence": None,
        "accuracy": {"top1": 50.0},
        "description": None,
        "load_seconds": 0.25,
    }


async def test_every_model(client: httpx.AsyncClient) -> None:
    assert (await client.get("/models")).json() == {"models": [(await client.get("/models/default")).json()]}


async def test_the_name_is_a_setting() -> None:
    async with serving(model_name="animals") as service:
        assert (await service.client.get("/models/animals")).json()["name"] == "animals"
        answer = (await service.client.post("/classify", files={"file": b"x"})).json()
        assert answer["model"]["name"] == "animals"
        assert problem(await service.client.get("/models/default"), 404, "model-not-found")["value"] == "default"


async def test_a_model_of_another_name(client: httpx.AsyncClient) -> None:
    body = problem(await client.get("/models/" + "x" * 5000), 404, "model-not-found")
    assert body["value"] == "x" * 100
    assert "there is default" in body["detail"]
