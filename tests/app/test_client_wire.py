"""Each call as the request it becomes, what may be given, and answers of services that are newer or none."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import client_wire as wire
from app.client_errors import UnexpectedAnswer
from app.client_failures import Answer
from app.client_wire import Call, Service
from tests.app.clients import IMAGE, answer

KEY = "sknet-a-secret-that-nobody-sees"
PNG = b"\x89PNG\r\n\x1a\n..."


def sent(call: Call[Any], address: str = "http://service", key: str | None = None, left_s: float = 2.5) -> httpx.Request:
    return Service(address, key).request(call, left_s)


def read(call: Call[Any], body: bytes | Any, media: str = "application/json") -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return call.read(Answer(200, httpx.Headers({"Content-Type": media}), content))


@pytest.mark.parametrize(
    ("call", "method", "target"),
    [
        (wire.classify(IMAGE), "POST", "/classify"),
        (
            wire.classify(IMAGE, top_k=3, min_score=0.0, explain=True),
            "POST",
            "/classify?top_k=3&min_score=0.0&explain=kernel_attention",
        ),
        (wire.explanation(IMAGE), "POST", "/explain"),
        (wire.explanation(IMAGE, class_index=0, top_k=1), "POST", "/explain?class_index=0&top_k=1"),
        (wire.picture(IMAGE, class_index=4), "POST", "/explain?class_index=4"),
        (wire.picture(IMAGE, overlay=True), "POST", "/explain?picture=overlay"),
        (wire.models(), "GET", "/models"),
        (wire.model("a/b?c d"), "GET", "/models/a%2Fb%3Fc%20d"),
        (wire.readiness(), "GET", "/readyz"),
        (wire.load("default", "bundled:x"), "POST", "/models/default/load"),
        (wire.unload("default"), "POST", "/models/default/unload"),
    ],
)
def test_each_call_goes_where_it_should(call: Call[Any], method: str, target: str) -> None:
    request = sent(call, "http://service/behind/a/proxy/")
    assert (request.method, request.url.raw_path.decode()) == (method, f"/behind/a/proxy{target}")


def test_an_image_goes_as_it_is() -> None:
    request = sent(wire.classify(IMAGE))
    assert request.read() == IMAGE
    assert request.headers["content-type"] == "application/octet-stream"
    assert request.headers["accept"] == "application/json"
    assert sent(wire.picture(IMAGE)).headers["accept"] == "image/png"


def test_a_body_in_pieces_keeps_its_length() -> None:
    data = bytes(200_000)
    request = Service("http://service").request(wire.classify(data), 1.0, lambda whole: iter([whole[:7], whole[7:]]))
    assert request.headers["content-length"] == "200000"
    assert "transfer-encoding" not in request.headers
    assert request.read() == data


@pytest.mark.parametrize(("left_s", "said"), [(2.5, "2500"), (0.0004, "1"), (10.0, "10000")])
def test_the_service_is_told_what_is_left(left_s: float, said: str) -> None:
    request = sent(wire.classify(IMAGE), left_s=left_s)
    assert request.headers["x-timeout-ms"] == said
    assert set(request.extensions["timeout"].values()) == {left_s}


def test_every_call_has_an_id_of_its_own_which_its_tries_share() -> None:
    call = wire.classify(IMAGE)
    assert sent(call).headers["x-request-id"] == sent(call).headers["x-request-id"] == call.id
    assert wire.classify(IMAGE).id != call.id


def test_what_a_load_asks_for() -> None:
    assert json.loads(sent(wire.load("m", "bundled:x")).read()) == {"checkpoint": "bundled:x"}
    assert json.loads(sent(wire.load("m", None)).read()) == {}
    assert not wire.load("m", None).idempotent
    assert not wire.unload("m").idempotent
    assert wire.classify(IMAGE).idempotent


def test_a_key_is_a_header_and_nothing_that_is_shown() -> None:
    service = Service("http://service", KEY)
    assert service.request(wire.models(), 1).headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(service)
    assert "authorization" not in sent(wire.models()).headers


@pytest.mark.parametrize("key", ["", " ", f"{KEY}\n", f"{KEY} x", "schlüssel", f"{KEY}\r\nX-Other: 1", "\0"])
def test_a_key_that_no_header_holds_is_refused_unseen(key: str) -> None:
    with pytest.raises(ValueError, match="the key is empty or holds") as caught:
        Service("http://service", key)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("https://example.org/a/b/", "https://example.org/a/b"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_addresses(address: str, kept: str) -> None:
    assert Service(address).address == kept


@pytest.mark.parametrize(
    "address",
    ["", "localhost:8000", "ftp://example.org", "http://", "/classify", "http://h/?a=1", "http://h/#a", "http://h:99999999"],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="the address"):
        Service(address)


def test_an_address_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="give the key as `key`") as caught:
        Service(f"http://user:{KEY}@service")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": float("inf")},
        {"timeout_s": float("nan")},
        {"retries": -1},
        {"concurrency": 0},
    ],
)
def test_numbers_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Service("http://service", **wrong)


def grown(value: Any, new: Any) -> Any:
    """The same with another field in every object but the open ones, whose names are data."""
    if isinstance(value, list):
        return [grown(each, new) for each in value]
    if not isinstance(value, dict):
        return value
    return {k: v if k in ("arguments", "accuracy") else grown(v, new) for k, v in value.items()} | {"of_tomorrow": new}


@given(st.none() | st.integers() | st.text() | st.dictionaries(st.text(), st.integers()))
def test_a_service_that_says_more_is_understood(new: Any) -> None:
    attention = {
        "unit": "SK_2_1", "module": "layer1", "kernel_sizes": [3, 5], "channels": 4, "mean_attention": [0.5, 0.5],
        "attention_difference": 0.0, "mean_kernel_size": 4.0,
    }  # fmt: skip
    document = json.loads(answer(kernel_attention=[attention], comparable_to_paper=True, comparable_reason="so").content)
    call = wire.classify(IMAGE, explain=True)
    assert read(call, grown(document, new)) == read(call, document)
    assert read(wire.readiness(), grown({"ready": True, "reasons": []}, new)).ready


def test_the_best_class() -> None:
    found = read(wire.classify(IMAGE), answer().content)
    assert (found.best.label, found.scores) == ("cat", {2: 0.5})
    with pytest.raises(LookupError, match="no class reached"):
        _ = read(wire.classify(IMAGE, min_score=1), {**json.loads(answer().content), "predictions": []}).best


@pytest.mark.parametrize(
    ("call", "body", "said"),
    [
        (wire.classify(IMAGE), b"<html>hello</html>", "(text/html) is not what this service sends: the whole: Invalid JSON"),
        (wire.classify(IMAGE), {"predictions": []}, "model: Field required"),
        (wire.models(), [], "the whole: Input should be an object"),
        (wire.picture(IMAGE), b"{}", "(text/html) is no PNG"),
    ],
)
def test_an_answer_of_another_service(call: Call[Any], body: Any, said: str) -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        read(call, body, "text/html")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_picture_is_the_bytes_themselves() -> None:
    assert read(wire.picture(IMAGE), PNG, "image/png") == PNG
