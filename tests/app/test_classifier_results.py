"""Answers remembered by the classifier: what is asked twice runs once, costs no room, and harms nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.classifier import Classified, Wanted
from app.errors import DeadlinePassed, MalformedRequest, NotReady, Overloaded
from app.fingerprint import AT_ONCE_BYTES
from model.errors import EngineError, ImageUndecodable
from model.types import ScoreFunction
from tests.app.asgi import serving, until
from tests.app.test_classifier import classify, count, started, within
from tests.fakes import FakeModel, fake_info

ZEROS = (0.0, 0.0, 0.0)


def times(found: Classified) -> tuple[float, float, float]:
    return found.timings.queue_s, found.timings.prepare_s, found.timings.inference_s


async def flying(model: FakeModel, make: Any) -> asyncio.Task[Any]:
    """A task whose image is in the engine, held by the gate."""
    task = asyncio.create_task(make)
    await asyncio.to_thread(model.entered.wait, 5)
    return task


async def test_off_by_default() -> None:
    async with started(FakeModel()) as (classifier, metrics):
        for _ in range(2):
            await classify(classifier, b"\x02")
        assert (count(metrics, "classified"), count(metrics, "cached")) == (2, 0)


@pytest.mark.parametrize("size", [1, AT_ONCE_BYTES + 1])
async def test_the_same_image_again_is_answered_without_work(size: int) -> None:
    model = FakeModel(run_s=0.001)
    async with started(model, result_cache=10) as (classifier, metrics):
        first = await classify(classifier, b"\x02" * size)
        again = await classify(classifier, b"\x02" * size)
        assert again.predictions == first.predictions
        assert again.image == first.image
        assert times(first)[2] >= 0.001
        assert times(again) == ZEROS
        assert [len(batch) for batch in model.batches] == [1]
        assert (count(metrics, "classified"), count(metrics, "cached")) == (1, 1)
        assert metrics.registry.get_sample_value("sknet_phase_duration_seconds_count", {"phase": "total"}) == 1


async def test_any_number_of_classes_is_told_of_a_remembered_row() -> None:
    async with started(FakeModel(), result_cache=10) as (classifier, _):
        await classify(classifier, b"\x02")
        more = await classifier.classify(b"\x02", top_k=4, min_score=0.2, deadline=within())
        assert [p.index for p in more.predictions] == [2, 3]


async def test_other_bytes_other_weights_and_what_was_forgotten_run() -> None:
    model = FakeModel()
    async with started(model, result_cache=1) as (classifier, _):
        for data in (b"\x01", b"\x02", b"\x01"):
            await classify(classifier, data)
        assert model.batches == [[b"\x01"], [b"\x02"], [b"\x01"]]
        await classify(classifier, b"\x01")
        assert len(model.batches) == 3
        await classifier.load(lambda: replace(model, info=fake_info(digest="1" * 64)))
        await classify(classifier, b"\x01")
        assert len(model.batches) == 4


async def test_asked_twice_at_once_it_runs_once_and_holds_one_place() -> None:
    model = FakeModel(gate=threading.Event())
    async with started(model, result_cache=10, max_queue=1) as (classifier, metrics):
        first = await flying(model, classify(classifier, b"\x02"))
        others = [asyncio.create_task(classify(classifier, b"\x02")) for _ in range(3)]
        with pytest.raises(Overloaded):
            await classify(classifier, b"\x03")
        assert classifier._current().scheduler.admitted == 1
        assert model.gate is not None
        model.gate.set()
        found = await asyncio.gather(first, *others)
        assert {f.predictions for f in found} == {found[0].predictions}
        assert [times(f) == ZEROS for f in found] == [False, True, True, True]
        assert len(model.batches) == 1
        assert (count(metrics, "classified"), count(metrics, "cached"), count(metrics, "failed")) == (1, 3, 0)
        assert classifier._current().scheduler.admitted == 0


async def test_a_full_queue_still_answers_what_is_known() -> None:
    model = FakeModel()
    async with started(model, result_cache=10, max_queue=1) as (classifier, _):
        await classify(classifier, b"\x02")
        model.gate = threading.Event()
        model.entered.clear()
        busy = await flying(model, classify(classifier, b"\x03"))
        assert (await classify(classifier, b"\x02")).predictions[0].index == 2
        assert classifier.refusal(1, within()) is None  # so that the bytes are read that may be known
        model.gate.set()
        await busy


async def test_the_first_that_leaves_takes_nobody_with_it() -> None:
    model = FakeModel(gate=threading.Event())
    async with started(model, result_cache=10) as (classifier, metrics):
        first = await flying(model, classify(classifier, b"\x02"))
        second = asyncio.create_task(classify(classifier, b"\x02"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        assert model.gate is not None
        model.gate.set()
        assert (await second).predictions[0].index == 2
        assert (count(metrics, "abandoned"), count(metrics, "cached")) == (1, 1)
        assert len(model.batches) == 1


async def test_a_short_deadline_ends_for_its_owner_alone() -> None:
    model = FakeModel(gate=threading.Event())
    async with started(model, result_cache=10) as (classifier, metrics):
        first = await flying(model, classify(classifier, b"\x02", 0.05))
        second = asyncio.create_task(classify(classifier, b"\x02", 10))
        with pytest.raises(DeadlinePassed) as caught:
            await first
        assert caught.value.limit == 0.05
        assert model.gate is not None
        model.gate.set()
        assert (await second).predictions[0].index == 2
        assert (count(metrics, "late"), count(metrics, "cached")) == (1, 1)


async def test_a_deadline_that_passes_in_the_queue_does_not_make_the_others_begin_again() -> None:
    model = FakeModel(gate=threading.Event())
    async with started(model, result_cache=10) as (classifier, _):
        busy = await flying(model, classify(classifier, b"\x01"))
        first = asyncio.create_task(classify(classifier, b"\x02", 0.05))
        second = asyncio.create_task(classify(classifier, b"\x02", 10))
        await until(lambda: classifier._current().scheduler.ready == 1 or first.done())
        with pytest.raises(DeadlinePassed):
            await first
        assert model.gate is not None
        model.gate.set()
        assert (await second).predictions[0].index == 2
        await busy
        assert model.prepared == [b"\x01", b"\x02"]


async def test_when_all_have_left_the_work_is_freed_before_the_engine_sees_it() -> None:
    model = FakeModel(gate=threading.Event())
    async with started(model, result_cache=10) as (classifier, _):
        busy = await flying(model, classify(classifier, b"\x01"))
        leaving = [asyncio.create_task(classify(classifier, b"\x02")) for _ in range(2)]
        scheduler = classifier._current().scheduler
        await until(lambda: scheduler.ready == 1)
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
        await until(lambda: (scheduler.admitted, scheduler.ready) == (1, 0))
        assert model.gate is not None
        model.gate.set()
        await busy
        assert model.batches == [[b"\x01"]]


async def test_faults_are_not_remembered() -> None:
    model = FakeModel()
    async with started(model, result_cache=10) as (classifier, metrics):
        for data, error in ((b"bad", ImageUndecodable), (b"poison", EngineError)):
            for _ in range(2):
                with pytest.raises(error):
                    await classify(classifier, data)
        assert model.prepared == [b"bad", b"bad", b"poison", b"poison"]
        with pytest.raises(MalformedRequest):
            await classify(classifier, b"")
        assert (count(metrics, "rejected"), count(metrics, "failed")) == (3, 2)


async def test_what_cannot_be_ranked_is_not_remembered() -> None:
    class Unsound(FakeModel):
        def top_k(self, row: Any, k: int, function: ScoreFunction = "softmax") -> Any:
            raise EngineError("not finite")

    model = Unsound()
    async with started(model, result_cache=10) as (classifier, _):
        for _ in range(2):
            with pytest.raises(EngineError):
                await classify(classifier, b"x")
        assert len(model.batches) == 2


async def test_a_remembered_row_keeps_no_batch_alive() -> None:
    batches: list[Any] = []

    class Rows(FakeModel):
        def run(self, items: Sequence[Any]) -> Sequence[Any]:
            batches.append(np.ones((len(items), 7), np.float32))
            return list(batches[-1])

        def top_k(self, row: Any, k: int, function: ScoreFunction = "softmax") -> Any:
            return ()

    async with started(Rows(), result_cache=10) as (classifier, _):
        await classify(classifier, b"x")
        assert classifier._results is not None
        (known,) = classifier._results._known.values()
        assert known.row.base is None
        assert not np.shares_memory(known.row, batches[0])


async def test_a_refused_image_refuses_nobody_who_may_come_later() -> None:
    model = FakeModel(gate=threading.Event())
    async with started(model, result_cache=10, max_queue=1) as (classifier, metrics):
        busy = await flying(model, classify(classifier, b"\x01"))
        results = await asyncio.gather(*(classify(classifier, b"\x02") for _ in range(3)), return_exceptions=True)
        assert [type(r) for r in results] == [Overloaded] * 3
        assert model.gate is not None
        model.gate.set()
        await busy
        assert (await classify(classifier, b"\x02")).predictions[0].index == 2
        assert count(metrics, "failed") == 0


async def test_a_batch_needs_room_only_for_what_is_new() -> None:
    model = FakeModel()
    async with started(model, result_cache=10, max_queue=2) as (classifier, metrics):
        await classify(classifier, b"\x01")
        images = [b"\x01", b"\x02", b"\x02", b"\x03", b"bad"]
        with pytest.raises(Overloaded):
            await classifier.classify_many(images, top_k=1, min_score=0, deadline=within())
        assert model.prepared == [b"\x01"]
        _, results = await classifier.classify_many(images[:4], top_k=1, min_score=0, deadline=within())
        assert [r.predictions[0].index for r in results if isinstance(r, Classified)] == [1, 2, 2, 3]
        assert sorted(model.prepared) == [b"\x01", b"\x02", b"\x03"]
        assert (count(metrics, "classified"), count(metrics, "cached")) == (3, 2)
        assert classifier._current().scheduler.admitted == 0


async def test_a_bad_image_of_a_batch_is_its_own_fault_with_a_cache_too() -> None:
    async with started(FakeModel(), result_cache=10) as (classifier, _):
        _, results = await classifier.classify_many([b"\x01", b"bad", b"bad", b""], top_k=1, min_score=0, deadline=within())
        assert [type(r) for r in results] == [Classified, ImageUndecodable, ImageUndecodable, MalformedRequest]
        assert classifier._current().scheduler.admitted == 0


async def test_closing_answers_everybody_who_waits_for_one_image() -> None:
    model = FakeModel(gate=threading.Event())
    async with started(model, result_cache=10) as (classifier, _):
        busy = await flying(model, classify(classifier, b"\x01"))
        waiting = [asyncio.create_task(classify(classifier, b"\x02")) for _ in range(3)]
        await until(lambda: classifier._current().scheduler.ready == 1)
        closing = asyncio.create_task(classifier.close())
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(r) for r in results] == [NotReady] * 3
        assert model.gate is not None
        model.gate.set()
        assert (await busy).predictions[0].index == 1
        await closing
        assert [t for t in asyncio.all_tasks() if t.get_name() == "result"] == []


async def test_a_cached_answer_over_http() -> None:
    async with serving(result_cache=10) as service:
        answers = [await service.client.post("/classify", files={"file": b"\x02"}) for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        timing = answers[1].headers["server-timing"]
        assert timing.startswith("queue;dur=0.00, prepare;dur=0.00, inference;dur=0.00, total;dur=")
        assert service.metric("sknet_images_total", outcome="cached") == 1


async def test_arrays_are_not_remembered_and_cost_room() -> None:
    model = FakeModel()
    array = np.full((224, 224, 3), 2, np.uint8)
    async with started(model, result_cache=10, max_queue=3) as (classifier, metrics):
        for _ in range(2):
            found = await classifier.tell(array, Wanted(top_k=1), within())
            assert found.predictions[0].label == "cat"
        assert len(model.batches) == 2
        assert (count(metrics, "classified"), count(metrics, "cached")) == (2, 0)
        _, results = await classifier.tell_many([array, b"\x03", array], Wanted(), within())
        assert all(isinstance(result, Classified) for result in results)
        with pytest.raises(Overloaded):
            await classifier.tell_many([array] * 4, Wanted(), within())
