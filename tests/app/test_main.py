"""The composition root: what is made, what is not made on import, and how a start fails."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.main import create_app, load_model
from app.metrics import Metrics
from app.settings import Settings, SettingsError
from model.errors import CheckpointNotFound
from tests.app.asgi import client_of, serving, until
from tests.fakes import SECRET, FakeModel


@pytest.mark.parametrize("error", [CheckpointNotFound("nothing there"), RuntimeError(SECRET)])
async def test_without_anybody_to_tell_the_start_itself_fails(error: Exception) -> None:
    def load(_: Settings) -> FakeModel:
        raise error

    app = create_app(Settings(), load=load)
    with pytest.raises(type(error)) as caught:
        async with app.router.lifespan_context(app):
            pytest.fail("it started")
    assert caught.value is error


async def test_somebody_to_tell_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    error = RuntimeError(SECRET)

    def load(_: Settings) -> FakeModel:
        raise error

    told: list[Exception] = []
    app = create_app(Settings(), load=load, on_failure=told.append)
    async with app.router.lifespan_context(app), client_of(app) as client:
        await until(lambda: told)
        response = await client.get("/readyz")
        assert (response.status_code, response.json()["reasons"]) == (503, ["the model could not be loaded"])
    assert told == [error]
    assert SECRET in caplog.text  # a fault that nobody foresaw is in the log with its traceback


async def test_a_start_is_logged_and_gets_the_settings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sknet.service")
    seen: list[Settings] = []

    def load(given: Settings) -> FakeModel:
        seen.append(given)
        return FakeModel()

    settings = Settings(top_k=3)
    app = create_app(settings, load=load)
    async with app.router.lifespan_context(app):
        assert seen == [settings]
    assert [m for m in caplog.messages if m.startswith("ready: skfake from bundled:fake (fake, fake, fake)")]


async def test_whoever_waits_is_told_when_a_model_serves() -> None:
    told: list[bool] = []
    metrics = Metrics()
    app = create_app(Settings(), load=lambda _: FakeModel(), on_ready=lambda: told.append(True), metrics=metrics)
    async with app.router.lifespan_context(app), client_of(app) as client:
        await until(lambda: told)
        assert (await client.get("/readyz")).status_code == 200
    assert told == [True]
    assert metrics.registry.get_sample_value("sknet_requests_total", {"route": "/readyz", "status": "200"}) == 1


async def test_nobody_is_told_that_a_failure_serves() -> None:
    def load(_: Settings) -> FakeModel:
        raise CheckpointNotFound("nothing there")

    failed: list[Exception] = []
    app = create_app(Settings(), load=load, on_failure=failed.append, on_ready=lambda: pytest.fail("it is ready"))
    async with app.router.lifespan_context(app):
        await until(lambda: failed)


def test_the_model_is_loaded_as_the_settings_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from model import manager

    given: dict[str, Any] = {
        "checkpoint": "a.safetensors", "variant": "skresnet18", "labels_file": tmp_path, "cache_dir": tmp_path, "device": "cpu",
        "precision": "float32", "threads": 3, "max_pixels": 99, "engine": "openvino", "streams": 2, "batch_size": 4,
        "preprocess": "exact", "max_side": 77, "max_frames": 5, "max_metadata_bytes": 70_000, "decode_s": 1.5,
        "decode_memory_bytes": 300_000_000,
    }  # fmt: skip
    seen: list[manager.LoadRequest] = []
    monkeypatch.setattr(manager, "load", seen.append)
    load_model(Settings(**given, checkpoint_sha256="0" * 64))
    (request,) = seen
    assert {name: getattr(request, name) for name in given} == given
    assert request.sha256 == "0" * 64


async def test_the_end_closes_the_model() -> None:
    model = FakeModel()
    async with serving(model):
        assert not model.closed
    assert model.closed


def test_settings_come_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKNET_TOP_K", "2")
    assert create_app().state.services.settings.top_k == 2
    monkeypatch.setenv("SKNET_TOP_K", "none")
    with pytest.raises(SettingsError, match="SKNET_TOP_K is 'none'"):
        create_app()


def fresh(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_app_and_its_requests_never_import_torch() -> None:
    code = """
import asyncio, pkgutil, importlib, sys
import app
for module in pkgutil.walk_packages(app.__path__, "app."):
    importlib.import_module(module.name)
from tests.app.asgi import serving
async def main():
    async with serving() as service:
        response = await service.client.post("/classify", files={"file": b"x"})
        assert response.status_code == 200, response.text
        assert (await service.client.get("/openapi.json")).status_code == 200
asyncio.run(main())
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "torchvision", "timm"}))
"""
    assert fresh(code) == "[]\n"


def test_importing_sets_nothing_up() -> None:
    code = """
import logging, os
os.environ["SKNET_PORT"] = "nonsense"
import app.main, app.cli
from prometheus_client import REGISTRY
print(logging.getLogger().handlers, [n for n in REGISTRY._names_to_collectors if n.startswith("sknet")])
print([n for n, v in vars(app.main).items() if type(v).__name__ in ("FastAPI", "Settings", "Metrics", "Classifier")])
"""
    assert fresh(code) == "[] []\n[]\n"
