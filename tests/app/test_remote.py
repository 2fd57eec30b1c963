"""Many images through a service: order, errors of one image, and errors that concern all of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial

import httpx
import pytest

from app import remote
from app.answers import Answer, Gone
from app.client import Client
from app.client_order import AHEAD
from app.image_files import Source, Unreadable
from app.main import create_app
from app.remote import Remote
from app.settings import Settings
from tests.app.asgi import serving
from tests.fakes import LABELS

Handler = Callable[[httpx.Request], httpx.Response]
URL = "http://service.test"
DIGEST = "sha256:" + "0" * 64  # of the fake model
AT_ONCE = 8  # as a `Client` does without being told


@pytest.fixture
async def models() -> bytes:
    """What a real service says of its models."""
    async with serving() as service:
        return (await service.client.get("/models")).content


def service(models: bytes, classify: Handler) -> Handler:
    def handle(request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/readyz":
                return httpx.Response(200, json={"ready": True, "state": "ready", "reasons": []})
            case "/models":
                return httpx.Response(200, content=models)
        return classify(request)

    return handle


def ranking(request: httpx.Request) -> httpx.Response:
    """The class whose index the image is, and kernel attention where it is asked for."""
    index = request.content[0]
    unit = {
        "unit": "SK_2_1", "module": "layer1.0.conv1", "kernel_sizes": [3, 5], "channels": 64,
        "mean_attention": [0.25, 0.75], "attention_difference": 0.5, "mean_kernel_size": 4.5,
    }  # fmt: skip
    told = {"kernel_attention": [unit], "comparable_to_paper": False, "comparable_reason": "split"}
    answer = {
        "predictions": [{"index": index, "label": LABELS[index].name, "score": 0.5, "wnid": LABELS[index].wnid}],
        "model": {"name": "default", "variant": "skfake", "digest": DIGEST},
        "image": {"width": 4, "height": 3, "format": "PNG"},
        **(told if request.url.params.get("explain") == "kernel_attention" else {}),
    }
    return httpx.Response(200, json=answer)


def problem(status: int, slug: str, detail: str) -> httpx.Response:
    document = {"type": f"/problems/{slug}", "title": "t", "status": status, "detail": detail}
    return httpx.Response(status, content=json.dumps(document), headers={"content-type": "application/problem+json"})


def talking_to(monkeypatch: pytest.MonkeyPatch, handler: Handler) -> None:
    monkeypatch.setattr(remote, "Client", partial(Client, transport=httpx.MockTransport(handler)))


def source(name: str, data: bytes) -> Source:
    return Source(name, lambda _: data)


def test_order_errors_and_what_was_not_sent(monkeypatch: pytest.MonkeyPatch, models: bytes) -> None:
    def classify(request: httpx.Request) -> httpx.Response:
        if request.content == b"bad":
            return problem(422, "image-undecodable", "the bytes are no image")
        return ranking(request)

    def gone(_: str) -> bytes:
        raise Unreadable("Permission denied")

    talking_to(monkeypatch, service(models, classify))
    images = [Source("0", gone), source("1", b"\1"), source("2", b"bad"), source("3", b""), Source("4", gone)]
    images += [source(str(i), bytes([i % 7])) for i in range(5, 60)] + [Source("60", gone)]
    with Remote(URL, None) as backend:
        found = list(backend.classify(images, k=3))
    assert [answer.name for answer in found] == [str(i) for i in range(61)]
    failed = {answer.name: answer.error for answer in found if answer.error}
    assert failed == {
        **dict.fromkeys(("0", "4", "60"), "Permission denied"),
        "2": "the bytes are no image",
        "3": "the image is empty: 0 bytes",
    }
    assert all(answer.predictions[0].index == int(answer.name) % 7 for answer in found if answer.error is None)


def test_no_more_images_are_in_memory_than_are_under_way(monkeypatch: pytest.MonkeyPatch, models: bytes) -> None:
    """None is answered before `AT_ONCE` were sent, and by then no other was read."""
    lock, read, sent = threading.Lock(), [], threading.Semaphore(0)
    full, counts = threading.Event(), []

    def classify(request: httpx.Request) -> httpx.Response:
        sent.release()
        assert full.wait(20)
        return ranking(request)

    def reader(name: str) -> bytes:
        with lock:
            read.append(name)
        return b"\1"

    def images() -> Iterator[Source]:
        """Looks at what was read when so many were taken that the client must have stopped to wait."""
        for i in range(AT_ONCE * AHEAD):
            if i == AT_ONCE * AHEAD - 1:
                for _ in range(AT_ONCE):
                    assert sent.acquire(timeout=20)
                counts.append(len(read))
                full.set()
            yield Source(str(i), reader)

    talking_to(monkeypatch, service(models, classify))
    with Remote(URL, None) as backend:
        found = list(backend.classify(images(), k=1))
    assert counts == [AT_ONCE]
    assert [answer.name for answer in found] == [str(i) for i in range(AT_ONCE * AHEAD)]
    assert not any(answer.error for answer in found)


def test_what_is_asked_and_what_comes_back(monkeypatch: pytest.MonkeyPatch, models: bytes) -> None:
    asked: list[httpx.Request] = []

    def classify(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return ranking(request)

    talking_to(monkeypatch, service(models, classify))
    with Remote(URL, "a-key-of-16-chars") as backend:
        assert backend.labels == LABELS
        assert backend.about == {
            "checkpoint": "bundled:fake",
            "variant": "skfake",
            "digest": DIGEST,
            "runs": f"at {URL}: fake, fake, fake",
        }
        (found,) = backend.classify([source("a", b"\1")], k=1000, attention=True)
        (plain,) = backend.classify([source("a", b"\1")], k=2)
    assert asked[0].headers["authorization"] == "Bearer a-key-of-16-chars"
    assert [request.url.params["top_k"] for request in asked] == [str(len(LABELS)), "2"]
    assert found.document()["image"] == {"width": 4, "height": 3, "format": "PNG"}
    assert found.predictions[0].wnid == "n00000001"
    assert found.attention is not None
    assert found.attention.units[0].kernel_sizes == (3, 5)
    assert (found.attention.comparable_to_paper, found.attention.reason) == (False, "split")
    assert plain == Answer("a", found.predictions, found.image)


@pytest.mark.parametrize(("status", "slug"), [(401, "unauthorised"), (403, "scope-forbidden"), (404, "not-found")])
def test_what_concerns_every_image_ends_it(monkeypatch: pytest.MonkeyPatch, models: bytes, status: int, slug: str) -> None:
    talking_to(monkeypatch, service(models, lambda _: problem(status, slug, "no")))
    with Remote(URL, None) as backend, pytest.raises(Gone, match="no"):
        list(backend.classify([source("a", b"\1")] * 50, k=1))


def test_another_model_ends_it(monkeypatch: pytest.MonkeyPatch, models: bytes) -> None:
    """What it ranks may be no class of the first one: here the index lies behind all of them."""

    def classify(request: httpx.Request) -> httpx.Response:
        answer = ranking(request).json()
        if request.content == b"\5":
            answer["model"]["digest"] = "sha256:" + "1" * 64
            answer["predictions"][0]["index"] = 900
        return httpx.Response(200, json=answer)

    talking_to(monkeypatch, service(models, classify))
    with Remote(URL, None) as backend:
        each = backend.classify([source(str(i), bytes([i])) for i in range(7)], k=1)
        assert [next(each).name for _ in range(5)] == list("01234")
        with pytest.raises(Gone, match=f"the service at {URL} serves another model now"):
            next(each)


def test_a_service_that_is_not_there_or_not_ready_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        raise httpx.ConnectError("refused")

    talking_to(monkeypatch, refuse)
    with pytest.raises(Gone, match=f"no answer from {URL}"):
        Remote(URL, None)
    assert asked == ["/readyz"]  # once
    waiting = httpx.Response(503, json={"ready": False, "state": "loading", "reasons": ["the model is being loaded"]})
    talking_to(monkeypatch, lambda _: waiting)
    with pytest.raises(Gone, match="is not ready: the model is being loaded"):
        Remote(URL, None)


def test_an_address_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(ValueError, match="address"):
        Remote("ftp://example.org", None)


def test_the_shapes_are_those_of_the_service() -> None:
    """What the service's document promises of `/classify` is what `ranking` here answers with."""
    shape = create_app(Settings()).openapi()["components"]["schemas"]["ClassifyAnswer"]["properties"]
    request = httpx.Request("POST", f"{URL}/classify", params={"explain": "kernel_attention"}, content=b"\1")
    assert set(ranking(request).json()) == set(shape)
