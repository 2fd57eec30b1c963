"""`POST /explain`, and `?explain=kernel_attention` on the routes that classify."""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import Any

import httpx
import pytest

from tests.app.asgi import problem, serving, until
from tests.fakes import LABELS, SCALES, SECRET, FakeModel

CAT = b"\x02 the bytes of a cat"  # the fake model goes by the first byte
DOG = b"\x03 the bytes of a dog"
MODEL = {"name": "default", "variant": "skfake", "digest": "sha256:" + "0" * 64}


def units(first: int) -> list[dict[str, Any]]:
    """What the fake model tells of an image that begins with this byte."""
    share = 0.5 + first / 100
    return [
        {
            "unit": name, "module": module, "kernel_sizes": [3, 5], "channels": 64, "mean_attention": [1 - share, share],
            "attention_difference": 2 * share - 1, "mean_kernel_size": 3 * (1 - share) + 5 * share,
        }
        for name, module in (("SK_2_1", "layer1.0.conv1"), ("SK_3_1", "layer2.0.conv1"))
    ]  # fmt: skip


async def test_kernel_attention_beside_a_ranking(client: httpx.AsyncClient) -> None:
    plain = (await client.post("/classify", files={"file": CAT})).json()
    told = (await client.post("/classify?explain=kernel_attention", files={"file": CAT})).json()
    assert told == {
        **plain,
        "kernel_attention": units(2),
        "comparable_to_paper": True,
        "comparable_reason": "a test said so",
    }
    assert "kernel_attention" not in plain
    assert "comparable_to_paper" not in plain


async def test_kernel_attention_takes_no_second_pass() -> None:
    async with serving() as service:
        await service.client.post("/classify?explain=kernel_attention", files={"file": CAT})
        assert service.model.batches == [[CAT]]


async def test_kernel_attention_of_each_image_of_a_batch(client: httpx.AsyncClient) -> None:
    files = [("files", ("a.jpg", CAT)), ("files", ("b.txt", b"bad")), ("files", ("c.jpg", DOG))]
    plain = (await client.post("/classify/batch", files=files)).json()
    told = (await client.post("/classify/batch?explain=kernel_attention", files=files)).json()
    assert [result.pop("kernel_attention", None) for result in told["results"]] == [units(2), None, units(3)]
    assert (told.pop("comparable_to_paper"), told.pop("comparable_reason")) == (True, "a test said so")
    assert told == plain


async def test_a_batch_without_any_image_that_can_be_used(client: httpx.AsyncClient) -> None:
    told = (await client.post("/classify/batch?explain=kernel_attention", files={"files": b"bad"})).json()
    assert set(told) == {"model", "results"}
    assert "kernel_attention" not in told["results"][0]


async def test_a_remembered_answer_tells_the_same() -> None:
    async with serving(result_cache=1_000_000) as service:
        answers = [
            (await service.client.post(f"/classify{query}", files={"file": CAT})).json()
            for query in ("", "?explain=kernel_attention", "?explain=kernel_attention", "")
        ]
        assert len(service.model.batches) == 1
        assert answers[0] == answers[3]
        assert (
            answers[1] == answers[2] == {**answers[0], **{name: answers[1][name] for name in set(answers[1]) - set(answers[0])}}
        )
        assert answers[1]["kernel_attention"] == units(2)


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
@pytest.mark.parametrize("asked", ["", "saliency", "kernel_attention,", "KERNEL_ATTENTION"])
async def test_nothing_else_can_be_explained(client: httpx.AsyncClient, path: str, asked: str) -> None:
    answer = await client.post(path, params={"explain": asked}, files={"file": CAT, "files": CAT})
    body = problem(answer, 422, "invalid-parameter")
    assert body["parameter"] == "explain"
    assert "'kernel_attention'" in body["detail"]


async def test_an_explanation_is_exactly_the_contract(client: httpx.AsyncClient) -> None:
    answer = await client.post("/explain?top_k=2", files={"file": CAT})
    assert (answer.status_code, answer.headers["content-type"], answer.headers["vary"]) == (200, "application/json", "Accept")
    predictions = [
        {"index": 2, "label": "cat", "score": 0.5, "wnid": None},
        {"index": 3, "label": "dog", "score": 0.25, "wnid": None},
    ]
    box = {"left": 0.0, "top": 0.0, "right": 40.0, "bottom": 30.0}
    assert answer.json() == {
        "predictions": predictions,
        "model": MODEL,
        "image": {"width": 40, "height": 30, "format": "PNG"},
        "kernel_attention": units(2),
        "comparable_to_paper": True,
        "comparable_reason": "a test said so",
        "scale_sweep": [
            {"scale": scale, "predictions": predictions, "kernel_attention": units(2), "box": box} for scale in SCALES
        ],
        "class_activation": {
            "index": 2, "label": "cat", "score": 0.5, "wnid": None, "logit": 2.5, "bias": 0.5,
            "map": [[1.0, 2.0], [3.0, 2.0]], "box": box,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"files": {"file": ("cat.png", CAT)}}, id="multipart"),
        pytest.param({"content": CAT, "headers": {"Content-Type": "image/png"}}, id="raw"),
        pytest.param({"json": {"image": base64.b64encode(CAT).decode()}}, id="base64"),
    ],
)
async def test_every_form_of_one_image(client: httpx.AsyncClient, request_: dict[str, Any]) -> None:
    answer = await client.post("/explain", **request_)
    assert answer.status_code == 200, answer.text
    assert answer.json()["class_activation"]["label"] == "cat"
    assert len(answer.json()["predictions"]) == 5


async def test_the_map_of_another_class(client: httpx.AsyncClient) -> None:
    for index in (0, len(LABELS) - 1):
        body = (await client.post(f"/explain?top_k=1&class_index={index}", files={"file": CAT})).json()
        assert (body["class_activation"]["index"], body["predictions"][0]["index"]) == (index, 2)


@pytest.mark.parametrize("index", [-1, len(LABELS), 10**30])
async def test_a_class_that_is_none(client: httpx.AsyncClient, index: int) -> None:
    body = problem(await client.post(f"/explain?class_index={index}", files={"file": CAT}), 422, "invalid-parameter")
    assert (body["parameter"], body["limit"]) == ("class_index", 6)


async def test_low_scores_are_left_out_everywhere(client: httpx.AsyncClient) -> None:
    body = (await client.post("/explain?min_score=0.3", files={"file": CAT})).json()
    rankings = [body["predictions"], *(scale["predictions"] for scale in body["scale_sweep"])]
    assert [[p["label"] for p in ranking] for ranking in rankings] == [["cat"]] * 4
    none = (await client.post("/explain?min_score=1", files={"file": CAT})).json()
    assert none["predictions"] == []
    assert none["class_activation"]["label"] == "cat"  # of the ranking that was, not of what is shown


@pytest.mark.parametrize(
    ("query", "picture"), [("", b"figure"), ("?picture=figure", b"figure"), ("?picture=overlay", b"overlay")]
)
async def test_a_picture_for_who_accepts_one(client: httpx.AsyncClient, query: str, picture: bytes) -> None:
    answer = await client.post(f"/explain{query}", files={"file": CAT}, headers={"Accept": "image/png"})
    assert (answer.status_code, answer.headers["content-type"], answer.headers["vary"]) == (200, "image/png", "Accept")
    assert answer.content.startswith(b"\x89PNG")
    assert answer.content.endswith(picture + b" cat")
    asked_twice = await client.post(f"/explain{query}", files={"file": CAT}, headers={"Accept": "application/json"})
    assert asked_twice.headers["content-type"] == "application/json"


async def test_a_picture_of_another_kind(client: httpx.AsyncClient) -> None:
    body = problem(await client.post("/explain?picture=film", files={"file": CAT}), 422, "invalid-parameter")
    assert "'figure' or 'overlay'" in body["detail"]


@pytest.mark.parametrize("data", [b"bad", b"huge", b"exotic"])
async def test_what_is_no_image_is_counted_and_told(data: bytes) -> None:
    async with serving() as service:
        answer = await service.client.post("/explain", files={"file": data})
        assert answer.status_code == 422
        assert service.metric("sknet_images_total", outcome="rejected") == 1


async def test_an_empty_image(client: httpx.AsyncClient) -> None:
    problem(await client.post("/explain", files={"file": b""}), 400, "malformed-request")


async def test_a_fault_is_a_500_without_its_text(client: httpx.AsyncClient) -> None:
    answer = await client.post("/explain", files={"file": b"poison"})
    problem(answer, 500, "internal-error")
    assert SECRET not in answer.text


async def test_it_is_admitted_as_its_passes_and_gives_them_back() -> None:
    gate = threading.Event()
    model = FakeModel(gate=gate)
    async with serving(model, max_queue=4) as service:
        first = asyncio.create_task(service.client.post("/explain", files={"file": CAT}))
        await until(model.entered.is_set)
        assert service.metric("sknet_queue_size") == 3
        problem(await service.client.post("/explain", files={"file": CAT}), 429, "overloaded")
        one = asyncio.create_task(service.client.post("/classify", files={"file": DOG}))  # there is room for one
        await until(lambda: service.metric("sknet_queue_size") == 4)
        gate.set()
        assert (await first).status_code == (await one).status_code == 200
        assert service.metric("sknet_queue_size") == 0
        assert service.metric("sknet_images_total", outcome="classified") == 2


@pytest.mark.parametrize("max_queue", [1, 2])
async def test_a_queue_shorter_than_its_passes_still_explains(max_queue: int) -> None:
    async with serving(max_queue=max_queue) as service:
        assert (await service.client.post("/explain", files={"file": CAT})).status_code == 200
        assert service.metric("sknet_queue_size") == 0


async def test_its_deadline_can_be_lowered() -> None:
    async with serving(FakeModel(run_s=0.5)) as service:
        answer = await service.client.post("/explain", files={"file": CAT}, headers={"X-Timeout-Ms": "50"})
        problem(answer, 504, "deadline-passed")
        assert service.metric("sknet_images_total", outcome="late") == 1


async def test_a_picture_that_takes_too_long_holds_nobody_up() -> None:
    gate = threading.Event()

    class Slow(FakeModel):
        def figure(self, data: bytes, explanation: Any, form: str = "png") -> bytes:
            gate.wait(10)
            return super().figure(data, explanation)

    async with serving(Slow()) as service:
        try:
            asked: dict[str, Any] = {"files": {"file": CAT}, "headers": {"Accept": "image/png", "X-Timeout-Ms": "300"}}
            answers = await asyncio.gather(*(service.client.post("/explain", **asked) for _ in range(3)))
            for answer in answers:
                problem(answer, 504, "deadline-passed")
            assert (await service.client.post("/classify", files={"file": CAT})).status_code == 200
            assert service.metric("sknet_queue_size") == 0
        finally:
            gate.set()


async def test_it_needs_a_key_where_there_are_keys() -> None:
    async with serving(api_keys="a-key-of-more-than-sixteen-letters") as service:
        problem(await service.client.post("/explain", files={"file": CAT}), 401, "unauthorised")


async def test_timings_come_with_it() -> None:
    async with serving(FakeModel(run_s=0.02)) as service:
        answer = await service.client.post("/explain", files={"file": CAT})
        timing = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
        assert float(timing["inference"]) >= 20
        assert service.metric("sknet_phase_duration_seconds_count", phase="inference") == 1
