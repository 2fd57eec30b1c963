"""Both clients: against the real application with a model that is a fake, and against services that fail as written."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app import client_retries, client_wire
from app.client import (
    AsyncClient,
    BadImage,
    CheckpointRefused,
    Classification,
    Client,
    ClientError,
    DeadlinePassed,
    InvalidRequest,
    NotAllowed,
    NotFound,
    NotReady,
    Overloaded,
    ProblemError,
    Readiness,
    ServerFault,
    TooLarge,
    Unauthorised,
    UnexpectedAnswer,
    Unreachable,
    UnusableImage,
)
from app.main import create_app
from app.settings import Settings
from model.errors import CheckpointNotFound
from tests.app.asgi import serving
from tests.app.clients import ADDRESS, IMAGE, KINDS, Asked, Script, answer, asking, refusal
from tests.fakes import LABELS, SECRET, FakeModel

Kind = type[Client] | type[AsyncClient]
both = pytest.mark.parametrize("kind", KINDS)
KEY = "sknet-0123456789abcdef0123456789"
REFUSED = httpx.ConnectError("refused")
CLOSED = httpx.RemoteProtocolError("Server disconnected without sending a response.")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that nobody asked for are short."""
    monkeypatch.setattr(client_retries, "FIRST_S", 0.001)


async def failure(asked: Asked, verb: str, *args: Any, **options: Any) -> ClientError:
    """The error of a call that fails."""
    with pytest.raises(ClientError) as caught:
        await asked(verb, *args, **options)
    assert not isinstance(caught.value.__context__, httpx.HTTPError)
    return caught.value


# Against the application.


@both
async def test_an_image_is_ranked(kind: Kind) -> None:
    async with serving() as service, asking(kind, service.app) as ask:
        found = await ask("classify", IMAGE)
        assert isinstance(found, Classification)
        assert (found.best.index, found.best.label, found.image.format) == (2, "cat", "PNG")
        assert len(found.predictions) == 5
        assert found.kernel_attention is None
        assert len((await ask("classify", IMAGE, top_k=2)).predictions) == 2
        assert [p.score for p in (await ask("classify", IMAGE, min_score=0.2)).predictions] == [0.5, 0.25]


@both
async def test_with_the_kernels_it_chose(kind: Kind) -> None:
    async with serving() as service, asking(kind, service.app) as ask:
        found = await ask("classify", IMAGE, explain=True)
        assert [unit.unit for unit in found.kernel_attention] == ["SK_2_1", "SK_3_1"]
        told = await ask("explain", IMAGE, class_index=4, top_k=2)
        assert (told.best.label, told.class_activation.label, len(told.predictions)) == ("cat", "elk", 2)
        assert [scale.scale for scale in told.scale_sweep] == [1.0, 1.5, 2.0]
        assert await ask("figure", IMAGE, class_index=1) == b"\x89PNG\r\n\x1a\n figure bee"
        assert await ask("overlay", IMAGE) == b"\x89PNG\r\n\x1a\n overlay cat"


@both
async def test_whatever_a_caller_has_arrives(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(IMAGE)
    array = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    async with serving() as service, asking(kind, service.app) as ask:
        for image in (path, str(path), IMAGE, io.BytesIO(IMAGE)):
            await ask("classify", image)
        assert service.model.prepared == [IMAGE] * 4
        for picture in (array, Image.fromarray(array)):
            await ask("classify", picture)
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(service.model.prepared[-1]))), array)


@both
async def test_many_images_in_order_each_with_its_ranking_or_its_error(kind: Kind, tmp_path: Path) -> None:
    images = [bytes([n]) + b" image" for n in range(1, 50)]
    images[10:10] = [b"bad", str(tmp_path / "none.jpg"), b"bug"]  # type: ignore[list-item]  # a path among bytes
    told: list[tuple[int, int | None]] = []
    async with serving() as service, asking(kind, service.app) as ask:
        found = await ask("classify_many", images, top_k=1, concurrency=7, progress=lambda *how: told.append(how))
        assert [type(each) for each in found[10:13]] == [BadImage, UnusableImage, ServerFault]
        ranked = found[:10] + found[13:]
        assert [each.best.index for each in ranked] == [n % len(LABELS) for n in range(1, 50)]
        assert told == [(n, 52) for n in range(1, 53)]
        assert await ask("classify_many", []) == []
        assert SECRET not in str(found[12])


async def test_images_with_their_results_as_they_come() -> None:
    async with serving() as service:
        async with asking(AsyncClient, service.app) as ask:
            assert isinstance(ask.client, AsyncClient)
            pairs = [pair async for pair in ask.client.iter_classify([IMAGE, b"bad"], top_k=1)]
        assert pairs[0][0] is IMAGE
        assert isinstance(pairs[0][1], Classification)
        assert isinstance(pairs[1][1], BadImage)


@both
@pytest.mark.parametrize(
    ("image", "options", "kind_of", "words"),
    [
        (b"bad", {}, BadImage, "no image"),
        (b"huge", {}, TooLarge, "10000 x 6000"),
        (b"exotic", {}, BadImage, "PSD"),
        (b"bug", {}, ServerFault, "in the log"),
        (b"x" * 3000, {}, TooLarge, "at most 2000"),
        (IMAGE, {"top_k": 0}, InvalidRequest, "top_k"),
        (IMAGE, {"min_score": 2}, InvalidRequest, "min_score"),
    ],
)
async def test_what_the_service_refuses_is_an_error_of_its_kind(
    kind: Kind, image: bytes, options: dict[str, Any], kind_of: type[ProblemError], words: str
) -> None:
    async with serving(max_body_bytes=2000) as service, asking(kind, service.app) as ask:
        error = await failure(ask, "classify", image, **options)
        assert type(error) is kind_of
        assert words in str(error)
        assert error.tries == 1
        assert error.request_id


@both
async def test_models_and_a_model_that_is_not_there(kind: Kind) -> None:
    async with serving() as service, asking(kind, service.app) as ask:
        (model,) = await ask("models")
        assert (model.variant, model.state) == ("skfake", "ready")
        assert await ask("model", "default") == model
        assert type(await failure(ask, "model", "other/..")) is NotFound


@both
async def test_another_model_and_none(kind: Kind) -> None:
    def load(settings: Settings) -> FakeModel:
        if settings.checkpoint == "bundled:missing":
            raise CheckpointNotFound("there is none of that name")
        return FakeModel()

    app = create_app(Settings(open_admin=True), load=load)
    async with app.router.lifespan_context(app), asking(kind, app) as ask:
        assert (await ask("load", "default", "bundled:cifar10")).state == "ready"
        assert (await ask("load", "default")).state == "ready"
        assert type(await failure(ask, "load", "default", "bundled:missing")) is CheckpointRefused
        assert type(await failure(ask, "load", "default", "/etc/passwd")) is NotAllowed
        assert await ask("ready") == Readiness(True)
        assert (await ask("unload", "default")).state == "unloaded"
        told = await ask("ready")
        assert not told
        assert "unloaded" in told.reasons[0]


@both
async def test_keys(kind: Kind) -> None:
    async with serving(api_keys=f"line:predict:{KEY}") as service:
        async with asking(kind, service.app, key=KEY) as ask:
            assert (await ask("classify", IMAGE)).best.label == "cat"
            assert type(await failure(ask, "load", "default")) is NotAllowed
            assert KEY not in repr(ask.client)
        async with asking(kind, service.app, key=KEY + "0") as ask:
            error = await failure(ask, "classify", IMAGE)
            assert type(error) is Unauthorised
            assert KEY not in f"{error!r} {vars(error)}"
        async with asking(kind, service.app) as ask:
            assert type(await failure(ask, "classify", IMAGE)) is Unauthorised
            assert await ask("ready")


@both
async def test_a_service_that_has_too_much_to_do_is_asked_again(kind: Kind) -> None:
    """The application itself says 429 and when to come back: with room for one image, two at once cannot both be taken."""
    async with serving(FakeModel(run_s=0.02), max_queue=1) as service, asking(kind, service.app, timeout_s=20) as ask:
        found = await ask("classify_many", [bytes([n]) for n in range(6)], top_k=1, concurrency=3)
        assert [each.best.index for each in found] == list(range(6))
        assert service.metric("sknet_rejected_total", reason="overloaded") >= 1


# Against a script.


@both
@pytest.mark.usefixtures("quick")
async def test_what_passes_is_tried_again_under_the_same_id_with_what_time_is_left(kind: Kind) -> None:
    html = httpx.Response(502, content="<html>nginx</html>")
    script = Script([refusal(429, "overloaded"), REFUSED, refusal(503, "not-ready"), html, CLOSED, httpx.Response(504), answer()])
    async with asking(kind, script) as ask:
        assert (await ask("classify", IMAGE)).best.label == "cat"
    assert len(script.requests) == 7
    assert len({request.headers["x-request-id"] for request in script.requests}) == 1
    assert {request.content for request in script.requests} == {IMAGE}
    left = [int(request.headers["x-timeout-ms"]) for request in script.requests]
    assert 5_000 < left[-1] <= left[0] <= 10_000
    assert left == sorted(left, reverse=True)


@both
async def test_the_service_says_when_to_come_back(kind: Kind) -> None:
    script = Script([refusal(429, "overloaded", headers={"Retry-After": "1"}), answer()])
    started = time.monotonic()
    async with asking(kind, script) as ask:
        await ask("classify", IMAGE)
    assert time.monotonic() - started >= 1.0


@both
@pytest.mark.parametrize(
    ("status", "slug", "retry_after", "kind_of"),
    [
        (429, "overloaded", "11", Overloaded),
        (429, "rate-limited", "999999999999", Overloaded),
        (503, "not-ready", "Fri, 31 Dec 2199 23:59:59 GMT", NotReady),
    ],
)
async def test_no_time_for_what_it_says_the_problem_comes_at_once(
    kind: Kind, status: int, slug: str, retry_after: str, kind_of: type[ProblemError]
) -> None:
    script = Script([refusal(status, slug, headers={"Retry-After": retry_after})])
    async with asking(kind, script, timeout_s=10) as ask:
        error = await failure(ask, "classify", IMAGE)
    assert type(error) is kind_of
    assert (error.tries, len(script.requests)) == (1, 1)
    assert error.request_id == script.requests[0].headers["x-request-id"]


@both
@pytest.mark.usefixtures("quick")
async def test_the_last_failure_is_the_one_that_is_told(kind: Kind) -> None:
    async with asking(kind, Script([refusal(429, "overloaded"), REFUSED]), retries=3) as ask:
        error = await failure(ask, "classify", IMAGE)
    assert type(error) is Unreachable
    assert error.tries == 4
    async with asking(kind, Script([REFUSED]), retries=2) as ask:
        assert (await failure(ask, "classify", IMAGE)).tries == 3
    async with asking(kind, Script([REFUSED]), retries=0) as ask:
        assert (await failure(ask, "classify", IMAGE)).tries == 1


@both
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422, 500])
async def test_what_does_not_pass_is_sent_once(kind: Kind, status: int) -> None:
    script = Script([refusal(status, "some-other"), answer()])
    async with asking(kind, script) as ask:
        assert isinstance(await failure(ask, "classify", IMAGE), ProblemError)
    assert len(script.requests) == 1


@both
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_what_changes_the_service_is_sent_again_only_where_it_did_not_arrive(kind: Kind, verb: str) -> None:
    script = Script([REFUSED, REFUSED, refusal(503, "not-ready"), answer()])
    async with asking(kind, script) as ask:
        assert type(await failure(ask, verb, "default")) is NotReady
    assert len(script.requests) == 3
    script = Script([CLOSED, answer()])
    async with asking(kind, script) as ask:
        assert type(await failure(ask, verb, "default")) is Unreachable
    assert len(script.requests) == 1


@both
async def test_a_key_goes_nowhere_else(kind: Kind) -> None:
    elsewhere = httpx.Response(307, headers={"Location": "http://evil.example/classify"})
    script = Script([elsewhere])
    async with asking(kind, script, key=KEY) as ask:
        error = await failure(ask, "classify", IMAGE)
    assert type(error) is UnexpectedAnswer
    assert [request.url.host for request in script.requests] == ["service"]
    assert script.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in f"{error!r} {vars(error)}"


@both
@pytest.mark.parametrize("target", ["javascript:alert(1)", "http://[bad", "http://a:99999999/", "//", "mailto:x@y", "http:///"])
async def test_a_redirect_to_no_address_is_an_error_in_its_place(kind: Kind, target: str) -> None:
    def odd(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": target}) if request.content == b"odd" else answer()

    script = Script([odd])
    async with asking(kind, script) as ask:
        found = await ask("classify_many", [IMAGE, b"odd", IMAGE])
    assert [type(each) for each in found] == [Classification, UnexpectedAnswer, Classification]
    assert repr(target) in str(found[1])
    assert len(script.requests) == 3  # it was sent once


@both
@pytest.mark.parametrize("raised", [httpx.InvalidURL("odd"), httpx.CookieConflict("odd"), httpx.StreamError("odd")])
async def test_whatever_httpx_raises_is_an_error_in_its_place(kind: Kind, raised: Exception) -> None:
    async with asking(kind, Script([raised, answer()])) as ask:
        found = await ask("classify_many", [IMAGE, IMAGE], concurrency=1)
    assert [type(each) for each in found] == [UnexpectedAnswer, Classification]
    assert str(found[0]) == f"the exchange with {ADDRESS} broke off: odd"


@both
async def test_readiness_is_asked_once_and_a_no_is_no_error(kind: Kind) -> None:
    busy = httpx.Response(503, json={"ready": False, "reasons": ["the model is loading"]}, headers={"Retry-After": "1"})
    script = Script([busy])
    async with asking(kind, script) as ask:
        assert await ask("ready") == Readiness(False, ("the model is loading",))
    assert len(script.requests) == 1
    async with asking(kind, Script([httpx.Response(503, content="<html>")])) as ask:
        assert (await ask("ready")).reasons == ("503 Service Unavailable, from no service of this kind",)
    async with asking(kind, Script([REFUSED])) as ask:
        assert type(await failure(ask, "ready")) is Unreachable


@both
@pytest.mark.usefixtures("quick")
async def test_waiting_for_a_service(kind: Kind) -> None:
    busy = httpx.Response(503, json={"ready": False, "reasons": ["the model is loading"]})
    async with asking(kind, Script([REFUSED, busy, httpx.Response(200, json={"ready": True, "reasons": []})])) as ask:
        await ask("wait_ready", 5)
    busy.headers["Retry-After"] = "6"
    async with asking(kind, Script([busy])) as ask:
        error = await failure(ask, "wait_ready", 5)
        assert isinstance(error, NotReady)
        assert error.reasons == ("the model is loading",)


class Flood(httpx.SyncByteStream, httpx.AsyncByteStream):
    """An answer of a mebibyte after the other, and how many were taken."""

    def __init__(self, most: int) -> None:
        self.taken = 0
        self._most = most

    def __iter__(self) -> Iterator[bytes]:
        while self.taken < self._most:
            self.taken += 1
            yield bytes(1 << 20)

    async def __aiter__(self) -> Any:
        for piece in self:
            yield piece


@both
@pytest.mark.parametrize("verb", ["classify", "explain", "models", "ready", "wait_ready", "load"])
async def test_an_answer_without_end_fills_no_memory(kind: Kind, verb: str) -> None:
    flood = Flood(most=64)
    images = {"classify": (IMAGE,), "explain": (IMAGE,), "load": ("default",)}
    async with asking(kind, Script([httpx.Response(200, stream=flood)])) as ask:
        error = await failure(ask, verb, *images.get(verb, ()))
    assert isinstance(error, UnexpectedAnswer)
    assert str(error) == f"the answer from {ADDRESS} is larger than 32 MB"
    assert flood.taken == 31


@both
async def test_a_picture_may_be_larger_than_that(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(40_000_000)
    async with asking(kind, Script([httpx.Response(200, content=picture)])) as ask:
        assert await ask("overlay", IMAGE) == picture
    monkeypatch.setattr(client_wire, "MOST_PICTURE_BYTES", 39_000_000)
    async with asking(kind, Script([httpx.Response(200, content=picture)])) as ask:
        assert str(await failure(ask, "figure", IMAGE)) == f"the answer from {ADDRESS} is larger than 39 MB"


class Drip(httpx.SyncByteStream, httpx.AsyncByteStream):
    """An answer that goes on for ever."""

    def __iter__(self) -> Iterator[bytes]:
        while True:
            time.sleep(0.01)
            yield b" "

    async def __aiter__(self) -> Any:
        import asyncio

        while True:
            await asyncio.sleep(0.01)
            yield b" "


@both
async def test_an_answer_that_never_ends_is_given_up(kind: Kind) -> None:
    script = Script([refusal(429, "overloaded", headers={"Retry-After": "0"}), lambda _: httpx.Response(200, stream=Drip())])
    async with asking(kind, script, timeout_s=0.5) as ask:
        started = time.monotonic()
        error = await failure(ask, "classify", IMAGE)
        assert time.monotonic() - started < 5
    assert type(error) is DeadlinePassed
    assert isinstance(error.__cause__, Overloaded)  # what there was before
    assert error.tries == 2


def test_leaving_the_loop_ends_what_waits_to_be_sent_again() -> None:
    asked = threading.Barrier(3)

    def reply(request: httpx.Request) -> httpx.Response:
        asked.wait(5)
        if request.content == IMAGE:
            return answer()
        return refusal(429, "overloaded", headers={"Retry-After": "60"})

    with Client(ADDRESS, transport=httpx.MockTransport(reply), timeout_s=100, concurrency=3) as client:
        pairs = client.iter_classify([IMAGE, b"x", b"y"])  # the two others wait a minute
        assert isinstance(next(pairs)[1], Classification)
        started = time.monotonic()
        pairs.close()  # type: ignore[attr-defined]  # it is a generator
        assert time.monotonic() - started < 30


@both
@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"concurrency": -1}])
async def test_a_number_that_sends_nothing_is_refused_before_the_first_image(kind: Kind, wrong: dict[str, Any]) -> None:
    async with asking(kind, Script([answer()])) as ask:
        with pytest.raises(ValueError, match="concurrency"):
            await ask("classify_many", [IMAGE], **wrong)
        with pytest.raises(ValueError, match="concurrency"):
            ask.client.iter_classify([IMAGE], **wrong)  # type: ignore[call-overload, unused-ignore]


@both
def test_it_says_where_the_service_is(kind: Kind) -> None:
    assert repr(kind("http://127.0.0.1:8000/")) == f"{kind.__name__}('http://127.0.0.1:8000')"


def test_a_fresh_interpreter_imports_it_without_torch_or_the_service() -> None:
    code = (
        "import json, sys; from app.client import Client, AsyncClient; Client().close();"
        "print(json.dumps([name for name in sys.modules if '.' not in name] + [n for n in sys.modules if n.startswith('app.')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=os.environ)
    imported = set(json.loads(done.stdout))
    assert {
        "torch",
        "torchvision",
        "openvino",
        "fastapi",
        "starlette",
        "uvicorn",
        "prometheus_client",
        "PIL",
        "numpy",
    } & imported == set()
    ours = {name for name in imported if name.startswith("app.")}
    assert {name for name in ours if not name.startswith(("app.client", "app.schemas"))} == set()
