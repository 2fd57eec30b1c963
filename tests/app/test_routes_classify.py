"""`/classify` and `/classify/batch`: every form, the exact answers, and what becomes of a batch with bad images."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from tests.app.asgi import problem, serving
from tests.fakes import LABELS, SECRET

CAT = b"\x02 the bytes of a cat"  # the fake model goes by the first byte
DOG = b"\x03 the bytes of a dog"
CAT64, DOG64 = base64.b64encode(CAT).decode(), base64.b64encode(DOG).decode()


async def test_the_answer_is_exactly_the_contract(client: httpx.AsyncClient) -> None:
    response = await client.post("/classify?top_k=2", files={"file": ("cat.png", CAT, "image/png")})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "predictions": [
            {"index": 2, "label": "cat", "score": 0.5, "wnid": None},
            {"index": 3, "label": "dog", "score": 0.25, "wnid": None},
        ],
        "model": {"name": "default", "variant": "skfake", "digest": "sha256:" + "0" * 64},
        "image": {"width": 40, "height": 30, "format": "PNG"},
    }


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"files": {"file": ("cat.png", CAT)}}, id="multipart"),
        pytest.param({"files": {"file": ("cat.png", CAT), "other": ("x", DOG)}, "data": {"a": "b"}}, id="multipart with more"),
        pytest.param({"content": CAT, "headers": {"Content-Type": "image/png"}}, id="raw image"),
        pytest.param({"content": CAT, "headers": {"Content-Type": "IMAGE/JPEG; q=1"}}, id="raw image, shouted"),
        pytest.param({"content": CAT, "headers": {"Content-Type": "application/octet-stream"}}, id="raw bytes"),
        pytest.param({"json": {"image": CAT64}}, id="base64"),
        pytest.param({"json": {"image": f"{CAT64[:9]}\r\n {CAT64[9:]}\n"}}, id="base64 in lines"),
        pytest.param({"json": {"image": f"data:image/png;base64,{CAT64}"}}, id="data URI"),
        pytest.param({"json": {"image": f"DATA:image/svg+xml;charset=utf-8;base64,{CAT64}"}}, id="data URI with a parameter"),
        pytest.param({"json": {"image": f"data:;base64,{CAT64}"}}, id="data URI without a type"),
    ],
)
async def test_every_form_of_one_image(client: httpx.AsyncClient, request_: dict[str, Any]) -> None:
    response = await client.post("/classify", **request_)
    assert response.status_code == 200, response.text
    assert [p["label"] for p in response.json()["predictions"]] == ["cat", "dog", "elk", "fox", "gnu"]


async def test_a_query_that_says_nothing_changes_nothing(client: httpx.AsyncClient) -> None:
    for path, name in (("/classify", "file"), ("/classify/batch", "files")):  # without any query the framework is passed by
        bodies = [(await client.post(path + query, files={name: CAT})).text for query in ("", "?", "?a=b", "?min_score=0")]
        assert len(set(bodies)) == 1


@pytest.mark.parametrize("top_k", [1, 3, len(LABELS)])
async def test_top_k_within_its_range(client: httpx.AsyncClient, top_k: int) -> None:
    for path, form in (("/classify", {"file": CAT}), ("/classify/batch", {"files": CAT})):
        body = (await client.post(path, params={"top_k": top_k}, files=form)).json()
        assert len(body.get("predictions") or body["results"][0]["predictions"]) == top_k


async def test_top_k_follows_the_setting_and_never_exceeds_the_classes() -> None:
    for setting, shown in ((2, 2), (100, len(LABELS))):
        async with serving(top_k=setting) as service:
            body = (await service.client.post("/classify", files={"file": CAT})).json()
            assert len(body["predictions"]) == shown


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
@pytest.mark.parametrize("top_k", ["0", "-1", "8", str(10**9), str(10**40)])
async def test_top_k_out_of_range_tells_the_numbers(client: httpx.AsyncClient, path: str, top_k: str) -> None:
    body = problem(await client.post(path, params={"top_k": top_k}, files={"file": CAT, "files": CAT}), 422, "invalid-parameter")
    assert (body["parameter"], body["value"], body["limit"]) == ("top_k", int(top_k), 7)
    assert "from 1 to 7" in body["detail"]


@pytest.mark.parametrize(
    ("query", "parameter", "value"),
    [
        ("top_k=x", "top_k", "x"), ("top_k=", "top_k", ""), ("top_k=1.5", "top_k", "1.5"),
        ("top_k=" + "9" * 5000, "top_k", "9" * 100),
        ("min_score=-0.1", "min_score", "-0.1"), ("min_score=1.1", "min_score", "1.1"), ("min_score=nan", "min_score", "nan"),
        ("min_score=inf", "min_score", "inf"), ("min_score=high", "min_score", "high"),
    ],
)  # fmt: skip
async def test_parameters_that_cannot_be_read(client: httpx.AsyncClient, query: str, parameter: str, value: str) -> None:
    body = problem(await client.post(f"/classify?{query}", files={"file": CAT}), 422, "invalid-parameter")
    assert (body["parameter"], body["value"]) == (parameter, value)
    assert len(body["detail"]) < 300


async def test_min_score_leaves_out_what_is_below(client: httpx.AsyncClient) -> None:
    for min_score, labels in ((0.125, ["cat", "dog", "elk"]), (0.2, ["cat", "dog"]), (1, [])):
        response = await client.post("/classify", params={"min_score": min_score}, files={"file": CAT})
        assert [p["label"] for p in response.json()["predictions"]] == labels
    for given, limit in (("2", 1.0), ("-0.5", 0.0), ("nan", 1.0), ("inf", 1.0)):
        body = problem(await client.post(f"/classify?min_score={given}", files={"file": CAT}), 422, "invalid-parameter")
        assert (body["detail"], body["limit"]) == (f"min_score is {given!r}: it may be a number from 0 to 1", limit)


# what is wrong with a request


def multipart(*lines: bytes, boundary: str = "x") -> dict[str, Any]:
    return {"content": b"\r\n".join(lines), "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"}}


PART = (b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n', CAT)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        pytest.param({}, "the body is empty", id="nothing at all"),
        pytest.param({"content": b"", "headers": {"Content-Type": "image/png"}}, "the body is empty", id="empty raw body"),
        pytest.param(
            {"content": b"", "headers": {"Content-Type": "application/json"}}, "the body is empty", id="empty JSON body"
        ),
        pytest.param({"files": {"file": ("a.png", b"")}}, "the image is empty", id="empty part"),
        pytest.param({"files": {"image": ("a.png", CAT)}}, "no part named file; parts found: image", id="part of another name"),
        pytest.param({"files": [("file", CAT), ("file", DOG)]}, "2 parts named file", id="two parts"),
        pytest.param({"files": {"other": CAT}, "data": {"file": "text"}}, "the part has no filename", id="text part"),
        pytest.param({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "boundary", id="no boundary"),
        pytest.param(multipart(*PART, b"--x--", boundary="x" * 2000), "cannot be read", id="endless boundary"),
        pytest.param(multipart(*PART, b"--x--", boundary="other"), "cannot be read", id="wrong boundary"),
        pytest.param(
            multipart(b"--x\r\nContent-Disposition: form-data\r\n", CAT, b"--x--"), "cannot be read", id="part without name"
        ),
        pytest.param(multipart(b"--x\r\nno header at all\r\n", CAT, b"--x--"), "cannot be read", id="bad part header"),
        pytest.param(multipart(*PART), "not complete", id="cut off in a part"),
        pytest.param(multipart(*PART, b"--x"), "not complete", id="cut off after a part"),
        pytest.param(multipart(*PART, *PART[:1]), "not complete", id="cut off in part headers"),
        pytest.param({"files": [("f", (None, "x"))] * 200}, "number", id="too many fields"),
        pytest.param({"files": [("f", ("x", "x"))] * 1500}, "number", id="too many files"),
        pytest.param({"json": {"image": "%%%"}}, "no valid base64", id="bad base64"),
        pytest.param({"json": {"image": CAT64[:-3]}}, "no valid base64", id="base64 cut off"),
        pytest.param({"json": {"image": "Käse"}}, "no valid base64", id="no ASCII"),
        pytest.param({"json": {"image": ""}}, "the image is empty", id="empty base64"),
        pytest.param({"json": {"image": "data:image/png,abc"}}, "data:image/jpeg;base64", id="data URI without base64"),
        pytest.param({"content": b"{", "headers": {"Content-Type": "application/json"}}, "not as documented", id="bad JSON"),
        pytest.param(
            {"content": b'"\xff"', "headers": {"Content-Type": "application/json"}}, "not as documented", id="JSON, no UTF-8"
        ),
        pytest.param(
            {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, "not as documented", id="deep JSON"
        ),
        pytest.param(
            {"content": b'{"image":"\\ud800"}', "headers": {"Content-Type": "application/json"}}, "not as", id="half a character"
        ),
        pytest.param({"json": [CAT64]}, "not as documented", id="JSON array"),
        pytest.param({"json": {"img": CAT64}}, "img", id="wrong field"),
        pytest.param({"json": {"x" * 100_000: 1}}, "x" * 100, id="endless field"),
        pytest.param({"json": {"image": 5}}, "image", id="wrong type"),
        pytest.param({"json": {}}, "exactly one of image and url", id="neither"),
        pytest.param({"json": {"image": CAT64, "url": "https://example.org"}}, "exactly one of image and url", id="both"),
    ],
)
async def test_requests_that_cannot_be_read(
    client: httpx.AsyncClient, request_: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.bodies.LINGER_S", 0.05)  # the rest of a form that is refused is long, and nobody wants it
    body = problem(await client.post("/classify", **request_), 400, "malformed-request")
    assert words in body["detail"]
    assert len(body["detail"]) < 400
    assert (await client.post("/classify", files={"file": CAT})).status_code == 200


@pytest.mark.parametrize("charset", ["hex", "idna", "undefined", "utf-7", "punycode", "nonsense", "utf-16"])
async def test_a_charset_of_the_form_changes_nothing(client: httpx.AsyncClient, charset: str) -> None:
    headers = {"Content-Type": f"multipart/form-data; charset={charset}; boundary=x"}
    name = b'--x\r\nContent-Disposition: form-data; name="files"; filename="+2AA-\xff\xc3\xa4.png"\r\n'
    response = await client.post("/classify/batch", content=b"\r\n".join((name, CAT, b"--x--")), headers=headers)
    assert response.status_code == 200, response.text
    assert response.json()["results"][0]["filename"].startswith("+2AA-")


@pytest.mark.parametrize("boundary", ['"a b"', "'()+_,-./:=?", "----WebKitFormBoundary7MA4YWxkTrZu0gW"])
async def test_boundaries_as_RFC_2046_allows_them(client: httpx.AsyncClient, boundary: str) -> None:  # noqa: N802 - a name
    bare = boundary.strip('"').encode()
    body = (
        b"--"
        + bare
        + b'\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + CAT
        + b"\r\n--"
        + bare
        + b"--\r\n"
    )
    quoted = boundary if boundary.startswith('"') else f'"{boundary}"'
    response = await client.post("/classify", content=body, headers={"Content-Type": f"multipart/form-data; boundary={quoted}"})
    assert response.status_code == 200, response.text


async def test_a_large_form_that_is_cut_off(client: httpx.AsyncClient) -> None:
    body = PART[0] + b"\r\n" + bytes(3_000_000)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    problem(await client.post("/classify", content=body, headers=headers), 400, "malformed-request")


async def test_an_address_is_forbidden_unless_allowed(client: httpx.AsyncClient) -> None:
    body = problem(await client.post("/classify", json={"url": "https://example.org/cat.jpg"}), 403, "source-forbidden")
    assert "switched off" in body["detail"]


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "video/mp4", "x" * 500])
async def test_other_media_types_are_told_what_is_accepted(client: httpx.AsyncClient, media: str) -> None:
    body = problem(await client.post("/classify", content=CAT, headers={"Content-Type": media}), 415, "unsupported-media-type")
    assert body["value"] == media[:100]
    assert body["allowed"] == ["multipart/form-data", "image/*", "application/octet-stream", "application/json"]


async def test_bytes_without_a_media_type(client: httpx.AsyncClient) -> None:
    assert problem(await client.post("/classify", content=CAT), 415, "unsupported-media-type")["value"] == ""


async def test_the_batch_takes_no_raw_image(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "image/png"}
    body = problem(await client.post("/classify/batch", content=CAT, headers=headers), 415, "unsupported-media-type")
    assert body["allowed"] == ["multipart/form-data", "application/json"]


async def test_images_that_cannot_be_used(client: httpx.AsyncClient) -> None:
    body = problem(await client.post("/classify", files={"file": b"bad"}), 422, "image-undecodable")
    assert body["detail"] == "the bytes are no image"
    body = problem(await client.post("/classify", files={"file": b"huge"}), 422, "image-too-large")
    assert (body["limit"], body["value"]) == (50_000_000, 60_000_000)
    body = problem(await client.post("/classify", files={"file": b"exotic"}), 422, "image-unsupported")
    assert body["allowed"] == ["JPEG", "PNG"]


@pytest.mark.parametrize("data", [b"bug in decoding", b"poison for the engine"])
async def test_a_fault_of_ours_tells_nothing_and_is_logged(
    client: httpx.AsyncClient, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    response = await client.post("/classify", files={"file": data}, headers={"X-Request-ID": "abc"})
    body = problem(response, 500, "internal-error")
    assert response.headers["x-request-id"] == "abc"
    assert SECRET not in response.text
    assert set(body) == {"type", "title", "status", "detail"}
    faults = [r for r in caplog.records if r.exc_info and r.levelname == "ERROR"]
    assert [getattr(r, "request_id", None) for r in faults] == ["abc"]
    assert SECRET in str(faults[0].exc_info)


# batches


async def test_a_batch_answers_each_image_in_order(client: httpx.AsyncClient) -> None:
    parts = [("files", (f"{n}.png", bytes([n % 7]))) for n in range(20)]
    body = (await client.post("/classify/batch?top_k=1", files=parts)).json()
    assert body["model"] == {"name": "default", "variant": "skfake", "digest": "sha256:" + "0" * 64}
    assert [r["index"] for r in body["results"]] == list(range(20))
    assert [r["filename"] for r in body["results"]] == [f"{n}.png" for n in range(20)]
    assert [r["predictions"][0]["index"] for r in body["results"]] == [n % 7 for n in range(20)]


async def test_bad_images_spoil_nothing_but_themselves(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    sent = [
        ("a.jpg", CAT),
        ("b.txt", b"bad"),
        ("c.png", b""),
        ("d.png", b"poison"),
        ("e.png", b"bug"),
        ("f.png", b"huge"),
        ("g.png", DOG),
    ]
    response = await client.post("/classify/batch?top_k=1", files=[("files", each) for each in sent])
    assert response.status_code == 200
    results = response.json()["results"]
    assert results[0] == {
        "index": 0, "filename": "a.jpg", "status": 200, "predictions": [{"index": 2, "label": "cat", "score": 0.5, "wnid": None}],
    }  # fmt: skip
    assert results[1] == {
        "index": 1, "filename": "b.txt", "status": 422,
        "problem": {
            "type": "/problems/image-undecodable", "title": "The bytes are no readable image", "status": 422,
            "detail": "the bytes are no image",
        },
    }  # fmt: skip
    assert [r["filename"] for r in results] == [name for name, _ in sent]
    assert [r["status"] for r in results] == [200, 422, 400, 500, 500, 422, 200]
    assert (results[5]["problem"]["limit"], results[5]["problem"]["value"]) == (50_000_000, 60_000_000)
    assert results[6]["predictions"][0]["label"] == "dog"
    assert SECRET not in response.text
    assert sum(SECRET in str(record.exc_info) for record in caplog.records) == 2


async def test_a_batch_of_nothing_but_bad_images_is_still_an_answer(client: httpx.AsyncClient) -> None:
    response = await client.post("/classify/batch", files=[("files", ("a", b"bad")), ("files", ("b", b""))])
    assert (response.status_code, [r["status"] for r in response.json()["results"]]) == (200, [422, 400])


async def test_a_batch_in_json(client: httpx.AsyncClient) -> None:
    images = [CAT64, f"data:image/png;base64,{DOG64}", "%%%", "", base64.b64encode(b"bad").decode()]
    results = (await client.post("/classify/batch", json={"images": images})).json()["results"]
    assert [r["status"] for r in results] == [200, 200, 400, 400, 422]
    assert [r["predictions"][0]["label"] for r in results[:2]] == ["cat", "dog"]
    assert results[2]["problem"]["type"] == "/problems/malformed-request"
    assert "base64" in results[2]["problem"]["detail"]


async def test_text_among_the_files_is_one_bad_image(client: httpx.AsyncClient) -> None:
    results = (await client.post("/classify/batch", files={"files": CAT}, data={"files": "text"})).json()["results"]
    assert sorted(r["status"] for r in results) == [200, 400]


@pytest.mark.parametrize(
    "request_", [{"files": {"file": CAT}}, {"json": {"images": []}}, {"json": {"images": "x"}}, {"json": {}}]
)
async def test_batches_without_images(client: httpx.AsyncClient, request_: dict[str, Any]) -> None:
    problem(await client.post("/classify/batch", **request_), 400, "malformed-request")


async def test_a_batch_cut_off_between_images_is_refused_whole(client: httpx.AsyncClient) -> None:
    first = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n'
    problem(await client.post("/classify/batch", **multipart(first, CAT, first, DOG)), 400, "malformed-request")


@pytest.mark.parametrize("count", [33, 500])
async def test_too_many_images(client: httpx.AsyncClient, count: int) -> None:
    for request_ in ({"files": [("files", ("a", CAT))] * count}, {"json": {"images": [CAT64] * count}}):
        body = problem(await client.post("/classify/batch", **request_), 422, "invalid-parameter")
        assert (body["parameter"], body["limit"], body["value"]) == ("number of images", 32, count)


async def test_as_many_images_as_allowed(client: httpx.AsyncClient) -> None:
    response = await client.post("/classify/batch", files=[("files", ("a", CAT))] * 32)
    assert [r["status"] for r in response.json()["results"]] == [200] * 32


async def test_a_batch_that_no_queue_can_hold_is_not_told_to_come_back() -> None:
    async with serving(max_queue=3) as service:
        body = problem(await service.client.post("/classify/batch", json={"images": [CAT64] * 4}), 422, "invalid-parameter")
        assert body["limit"] == 3
        assert (await service.client.post("/classify/batch", json={"images": [CAT64] * 3})).status_code == 200


async def test_one_image_over_the_limit_inside_a_batch() -> None:
    async with serving(max_body_bytes=100) as service:
        large = b"\x02" * 101
        results = (await service.client.post("/classify/batch", files=[("files", ("a", large)), ("files", ("b", CAT))])).json()[
            "results"
        ]
        assert [r["status"] for r in results] == [413, 200]
        problem_ = results[0]["problem"]
        assert (problem_["type"], problem_["limit"], problem_["value"]) == ("/problems/body-too-large", 100, 101)
        results = (await service.client.post("/classify/batch", json={"images": [base64.b64encode(large).decode()]})).json()[
            "results"
        ]
        assert results[0]["status"] == 413


# headers


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
async def test_server_timing_has_every_phase(path: str) -> None:
    async with serving() as service:
        service.model.prepare_s = service.model.run_s = 0.02
        response = await service.client.post(path, files={"file": CAT, "files": CAT})
    timing = {
        name: float(value)
        for name, _, value in (entry.partition(";dur=") for entry in response.headers["server-timing"].split(", "))
    }
    assert list(timing) == ["queue", "prepare", "inference", "total"]
    assert timing["prepare"] >= 20
    assert timing["inference"] >= 20
    assert timing["total"] >= timing["queue"] + timing["prepare"] + timing["inference"] - 0.1
