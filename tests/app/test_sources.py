"""Base64 and data URIs to bytes, over arbitrary text; and what survives a chunked upload of every form."""

from __future__ import annotations

import base64
import textwrap
import tracemalloc
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import BodyTooLarge, MalformedRequest
from app.sources import decode_base64
from tests.app.asgi import problem, serving

QUIET = settings(deadline=None, max_examples=60)  # how long one example takes says nothing on a busy machine


@QUIET
@given(st.binary(min_size=1, max_size=300), st.integers(1, 80))
def test_what_was_encoded_comes_back(data: bytes, width: int) -> None:
    text = base64.b64encode(data).decode()
    assert decode_base64(text) == data
    assert decode_base64("\r\n".join(textwrap.wrap(text, width))) == data
    assert decode_base64(f"data:image/jpeg;base64,{text}") == data
    assert decode_base64(f"Data:application/x.y+z-1;charset=utf-8;a=b;BASE64,{text}") == data
    assert decode_base64(f"data:;base64,{text}") == data


@QUIET
@given(st.text() | st.text("ABCabc+/=-_ \n", max_size=40) | st.text(max_size=40).map("data:".__add__))
@example("data:image/png;base64,")
@example("data:" + ";a=b" * 10_000)
@example("=")
@example("A===")
@example("AA==AA==")
@example("\ud800")
def test_any_text_is_bytes_or_a_malformed_request(text: str) -> None:
    try:
        found: bytes | str = decode_base64(text)
    except MalformedRequest as error:
        found = str(error)
    assert found
    assert isinstance(found, bytes) or len(found) < 200


@pytest.mark.parametrize(
    "text", ["QQ", "QQ=", "Q-_=", "QUJD!", "QUJD\u00e9", "QU=JD", "data:text/plain,QUJD", "data:base64,QUJD", "data:"]
)
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(MalformedRequest, match="base64"):
        decode_base64(text)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 16])
def test_base64_is_the_same_in_steps_of_any_length(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    texts = [
        "QUJD",
        "QUI=",
        "QQ==",
        "Q Q\n= =\n\n \n",
        "QUJDQUJDQQ==",
        "QQ==QUJD",
        "QQ==Q",
        "QQ===",
        "QUJ",
        "=",
        "====",
        "QUJD====",
        "QUI=                    QUJD",
        "QU\u00e9D",
        "QUJDQ",
    ]

    def found(text: str) -> bytes | str:
        try:
            return decode_base64(text)
        except MalformedRequest as error:
            return str(error)

    whole = [found(text) for text in texts]
    assert [isinstance(each, bytes) for each in whole] == [True] * 5 + [False] * 10
    monkeypatch.setattr("app.sources._BASE64_STEP", step)
    assert [found(text) for text in texts] == whole


def test_base64_of_too_much_is_not_decoded_to_its_end() -> None:
    text = base64.b64encode(bytes(3_000_000)).decode()
    assert len(decode_base64(text, 3_000_000)) == 3_000_000
    with pytest.raises(BodyTooLarge) as caught:
        decode_base64(text, 1000)
    assert (caught.value.limit, caught.value.value) == (1000, 393_216)
    with pytest.raises(BodyTooLarge):
        decode_base64(f"data:image/png;base64,{text}", 2_999_999)


@QUIET
@given(st.binary(max_size=2000))
async def test_arbitrary_bytes_as_any_body_are_never_a_fault_of_ours(data: bytes) -> None:
    headers = ["application/json", "multipart/form-data; boundary=x", "multipart/form-data", "image/png", "text/plain", ""]
    async with serving() as service:
        for path in ("/classify", "/classify/batch"):
            for media in headers:
                response = await service.client.post(path, content=data, headers={"Content-Type": media})
                assert response.status_code < 500, (path, media, response.text)


PARTS = st.sampled_from(
    [
        b"--x",
        b"--",
        b"\r\n",
        b"\r",
        b"\n",
        b"Content-Disposition: form-data",
        b'; name="file"',
        b'; filename="a"',
        b": ",
        b"x",
        b"\xff",
        b"\0",
    ]
)


@QUIET
@given(st.lists(PARTS, max_size=25).map(b"".join))
@example(b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--x--\r\n')
async def test_things_that_look_like_a_form_are_never_a_fault_of_ours(data: bytes) -> None:
    async with serving() as service:
        response = await service.client.post(
            "/classify", content=data, headers={"Content-Type": "multipart/form-data; boundary=x"}
        )
        assert response.status_code in (200, 400)


@pytest.mark.parametrize("size", [1, 1_000_000, 3_000_000])
async def test_bytes_arrive_whole_in_every_form(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"\x02" * (size % 256)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, size, 65_537):
            yield data[start : start + 65_537]

    async with serving() as service:
        post = service.client.post
        answers: list[httpx.Response] = [
            await post("/classify", files={"file": data}),
            await post("/classify", content=data, headers={"Content-Type": "image/png"}),
            await post("/classify", content=chunks(), headers={"Content-Type": "application/octet-stream"}),
            await post("/classify", json={"image": base64.b64encode(data).decode()}),
            await post("/classify/batch", files={"files": data}),
        ]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert all(each == data for each in service.model.prepared)
    assert len(service.model.prepared) == 5


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"images":[' + b"1," * 100_000 + b"1]}", "20000 values"),
        (b'{"images":[' + b"1," * 900_000 + b"1]}", "262144 characters outside of its texts"),
        (b'{"images":[' + (b"1" * 4299 + b",") * 400 + b"1]}", "262144 characters outside of its texts"),
        (b"{" + b'"a":1,' * 300_000 + b'"b":1}', "20256 quotes"),
    ],
)
async def test_json_of_many_small_values_is_refused_before_they_are_made(body: bytes, words: str) -> None:
    async with serving() as service:
        tracemalloc.start()
        try:
            answer = await service.client.post("/classify/batch", content=body, headers={"Content-Type": "application/json"})
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert problem(answer, 400, "malformed-request")["detail"].startswith(f"the JSON holds more than {words}")
        assert peak < 8 * len(body)


async def test_one_fault_of_many_is_told() -> None:
    body = b'{"images":[' + b"1," * 10_000 + b"1]}"
    async with serving() as service:
        answer = await service.client.post("/classify/batch", content=body, headers={"Content-Type": "application/json"})
    assert problem(answer, 400, "malformed-request")["detail"] == "the JSON is not as documented: images.0 should be text"


def test_base64_with_white_space_everywhere_costs_no_more_than_its_bytes() -> None:
    text = "AA AA " * 200_000 + "AA=="
    tracemalloc.start()
    try:
        assert decode_base64(text) == bytes(600_001)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(text)
    finally:
        tracemalloc.stop()
