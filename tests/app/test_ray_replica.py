"""A replica without Ray: its share of the machine, the checkpoint that `user_config` names, its health, and its keys."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app import ray_board, ray_replica
from app.metrics import Metrics
from app.ray_board import Board
from app.ray_replica import Place, Replica, share_of
from app.settings import Settings, SettingsError, SpanVariables
from app.watchdog import Trouble
from model.errors import CheckpointError
from tests.app.asgi import client_of
from tests.app.test_ray_board import Remote
from tests.fakes import FakeModel, fake_info

PLACE = Place("sknet", "r1", 0, {"CPU": 2.0})
GOOD = {"bundled:cifar10": "a" * 64, "other": "b" * 64, "third": "c" * 64}


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, names = logging.getLogger(), ("sknet", "uvicorn")
    before = root.handlers[:], root.level, [logging.getLogger(name).level for name in names]
    yield
    root.handlers[:], level, levels = before
    root.setLevel(level)
    for name, each in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(each)


def load(settings: Settings) -> FakeModel:
    if settings.checkpoint not in GOOD:
        raise CheckpointError(f"{settings.checkpoint} is no checkpoint")
    return FakeModel(info=fake_info(digest=GOOD[settings.checkpoint]))


def replica(board: Board | None = None, loads: Callable[[Settings], Any] = load, **given: Any) -> Replica:
    remote = Remote(board or Board())
    return Replica(given, place=PLACE, load=loads, find=lambda: remote)


@asynccontextmanager
async def started(made: Replica) -> AsyncIterator[httpx.AsyncClient]:
    """As Ray starts it, but for the first `reconfigure`."""
    app = made.__serve_build_asgi_app__()
    assert isinstance(app, FastAPI)
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield client


async def digest(client: httpx.AsyncClient) -> str:
    answer = await client.get("/models/default")
    return str(answer.json()["digest"]).removeprefix("sha256:")


@pytest.mark.parametrize(
    ("resources", "settings", "wanted"),
    [
        ({"CPU": 3.0}, {}, {"threads": 3, "device": "cpu"}),
        ({"CPU": 0.5}, {}, {"threads": 1, "device": "cpu"}),
        ({}, {}, {"threads": 1, "device": "cpu"}),
        ({"CPU": 2.0, "GPU": 0.25}, {}, {"threads": 2, "device": "cuda"}),
        ({"CPU": 4.0}, {"threads": 2, "device": "cuda:1"}, {"threads": 2, "device": "cuda:1"}),
        ({"CPU": 2.0}, {"workers": 4, "grpc_port": 9001}, {"workers": 1, "grpc_port": 0}),
    ],
)
def test_a_replica_takes_what_ray_gave_it(resources: dict[str, float], settings: dict[str, Any], wanted: dict[str, Any]) -> None:
    share = share_of(Settings(**settings), Place("a", "r", 0, resources))
    assert {name: getattr(share, name) for name in wanted} == wanted


async def test_it_decodes_with_its_own_processors_only() -> None:
    made = replica()
    async with started(made):
        await made.reconfigure(None, 0)
        assert made._classifier.lanes.current().decode_pool._max_workers == 2


async def test_nothing_is_loaded_before_it_is_known_what() -> None:
    loaded: list[str] = []

    def noted(settings: Settings) -> FakeModel:
        loaded.append(settings.checkpoint)
        return load(settings)

    made = replica(loads=noted)
    async with started(made) as client:
        with pytest.raises(RuntimeError, match="the model is being loaded"):
            await made.check_health()
        await made.reconfigure({"checkpoint": "other"}, 0)
        assert loaded == ["other"]
        assert (await client.get("/readyz")).status_code == 200
        assert await digest(client) == GOOD["other"]
        await made.check_health()
        await made.reconfigure({"checkpoint": "other"}, 1)  # its rank changed
        assert loaded == ["other"]
        await made.reconfigure({"checkpoint": "other", "revision": 2}, 1)
        assert loaded == ["other", "other"]
        await made.reconfigure(None, 1)
        assert await digest(client) == GOOD["bundled:cifar10"]


@pytest.mark.parametrize("wrong", [{"checkpoint": "nowhere"}, {"chekpoint": "third"}, {"checkpoint": ""}, {"checkpoint": 3}])
async def test_what_cannot_be_served_changes_nothing_and_is_told(wrong: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    made = replica()
    logging.getLogger().addHandler(caplog.handler)
    async with started(made) as client:
        await made.reconfigure({"checkpoint": "other"}, 0)
        await made.reconfigure(wrong, 0)
        assert await digest(client) == GOOD["other"]
        await made.check_health()
        assert "was not taken up" in caplog.text
        assert 'sknet_model_loads_total{replica="r1",outcome="refused"} 1.0' in (await client.get("/metrics")).text
        await made.reconfigure({"checkpoint": "third"}, 0)
        assert await digest(client) == GOOD["third"]


async def test_a_first_one_that_cannot_be_served_ends_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_board, "STALE_S", 0.05)
    made = replica()
    async with started(made):
        with pytest.raises(RuntimeError, match="nowhere is no checkpoint"):
            await made.reconfigure({"checkpoint": "nowhere"}, 0)
        with pytest.raises(RuntimeError, match="nowhere is no checkpoint"):
            await made.check_health()


async def test_a_replica_that_comes_later_serves_what_the_others_do() -> None:
    board = Board()
    for name, serves in (("a", "gone since"), ("b", "gone since"), ("c", "other")):
        board.tell(name, Metrics().render(), (serves,))
    made = replica(board)
    async with started(made) as client:
        await made.reconfigure({"checkpoint": "nowhere"}, 0)
        assert await digest(client) == GOOD["other"]
        await made.check_health()


@pytest.mark.parametrize("call", ["load", "unload"])
async def test_http_changes_no_single_replica(call: str) -> None:
    made = replica(open_admin=True)
    async with started(made) as client:
        await made.reconfigure(None, 0)
        answer = await client.post(f"/models/default/{call}", json={})
        assert answer.status_code == 403
        assert answer.json()["type"] == "/problems/scope-forbidden"
        assert "user_config" in answer.json()["detail"]
        assert await digest(client) == GOOD["bundled:cifar10"]


async def test_while_nothing_serves_its_health_says_why() -> None:
    made = replica()
    async with started(made):
        await made.reconfigure(None, 0)
        lanes = made._classifier.lanes
        lanes.give_up(lanes.current(), Trouble("stuck engine", "a call has not come back"))
        with pytest.raises(RuntimeError, match="a call has not come back"):
            await made.check_health()


def test_no_replica_is_open_where_the_application_had_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="SKNET_API_KEYS was set"):
        Replica({}, keyed=True, place=PLACE, load=load, find=lambda: None)
    monkeypatch.setenv("SKNET_API_KEYS", "k" * 40)
    Replica({}, keyed=True, place=PLACE, load=load, find=lambda: None)


def test_the_first_replica_says_who_may_ask_and_what_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(ray_replica.logger, "warning", lambda line, *words: told.append(line % words))
    monkeypatch.setenv("SKNET_TOPK", "3")

    def start(rank: int, **given: Any) -> list[str]:
        told.clear()
        ignored = ("SKNET_PROT", "SKNET_TOPK")
        Replica(given, ignored=ignored, place=Place("sknet", "r", rank, {}), load=load, find=lambda: None)
        return told[:]

    prot, topk, open_to_all = start(0)
    assert prot.startswith("SKNET_PROT is no setting")
    assert topk.startswith("SKNET_TOPK is no setting")
    assert "whoever reaches the proxies of Ray Serve may classify" in open_to_all
    assert start(1) == []  # once, however many serve
    assert len(start(0, api_keys="k" * 40)) == 2


def test_spans_go_where_the_application_was_told_unless_the_node_knows_better(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(ray_replica.logger, "warning", lambda line, *words: told.append(line % words))
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"):
        monkeypatch.setenv(name, "")  # so that it is put back, and as good as not given
    monkeypatch.setenv("OTEL_SERVICE_NAME", "this node's")
    sent = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SERVICE_NAME": "all"}
    spans = SpanVariables(sent, kept=("OTEL_EXPORTER_OTLP_HEADERS",))

    def start() -> str:
        told.clear()
        Replica({}, spans=spans, place=Place("sknet", "r", 1, {}), load=load, find=lambda: None)
        return "\n".join(told)

    assert start().startswith("OTEL_EXPORTER_OTLP_HEADERS was set where the application was built, and is not here")
    assert os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert os.environ["OTEL_SERVICE_NAME"] == "this node's"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
    assert start() == ""


async def test_a_proxy_that_cannot_be_asked_is_a_client_that_left(caplog: pytest.LogCaptureFixture) -> None:
    made = replica()
    logging.getLogger().addHandler(caplog.handler)
    sent: list[Any] = []
    pieces: list[Any] = [{"type": "http.request", "body": b"half an im", "more_body": True}]

    async def receive() -> Any:
        if pieces:
            return pieces.pop()
        raise ConnectionError("the task was cancelled")

    async def send(message: Any) -> None:
        sent.append(message)

    async with started(made) as client:
        await made.reconfigure(None, 0)
        scope = {
            "type": "http", "method": "POST", "path": "/classify", "raw_path": b"/classify", "query_string": b"", "root_path": "",
            "headers": [(b"content-type", b"image/jpeg")], "client": ("127.0.0.1", 1), "server": ("x", 80), "scheme": "http",
        }  # fmt: skip
        await made.__serve_build_asgi_app__()(scope, receive, send)
        assert sent == []
        assert 'route="/classify",status="left"} 1.0' in (await client.get("/metrics")).text
    assert "request failed" not in caplog.text
