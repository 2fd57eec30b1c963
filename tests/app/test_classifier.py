"""The spine, without HTTP: what is counted, what is held and given back, and how it starts and ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.classifier import Classified, Classifier, Wanted
from app.context import Deadline
from app.errors import AppError, DeadlinePassed, InvalidParameter, MalformedRequest, NotReady, Overloaded
from app.metrics import Metrics
from app.settings import Settings
from model.errors import CheckpointNotFound, EngineError, ImageUndecodable, OutOfMemory, TensorUnusable
from tests.app.asgi import until
from tests.fakes import SECRET, FakeItem, FakeModel, fake_info


@asynccontextmanager
async def started(model: FakeModel, **settings: Any) -> AsyncIterator[tuple[Classifier, Metrics]]:
    metrics = Metrics()
    classifier = Classifier(Settings(**settings), metrics, decode_threads=2)
    await classifier.start(lambda: model)
    try:
        yield classifier, metrics
    finally:
        if model.gate is not None:
            model.gate.set()
        await classifier.close()


def within(seconds: float = 10.0) -> Deadline:
    return Deadline(asyncio.get_running_loop().time() + seconds, seconds)


async def classify(classifier: Classifier, data: bytes, seconds: float = 10.0) -> Classified:
    return await classifier.classify(data, top_k=1, min_score=0.0, deadline=within(seconds))


def count(metrics: Metrics, outcome: str) -> float:
    return metrics.registry.get_sample_value("sknet_images_total", {"outcome": outcome}) or 0.0


async def test_it_is_not_ready_before_it_started_nor_after_it_closed() -> None:
    model = FakeModel()
    classifier = Classifier(Settings(), Metrics(), decode_threads=1)
    assert (classifier.state, classifier.reasons) == ("loading", ("the model is being loaded",))
    with pytest.raises(NotReady, match="being loaded"):
        await classify(classifier, b"x")
    await classifier.start(lambda: model)
    assert (classifier.state, classifier.reasons) == ("ready", ())
    assert classifier.model is model
    assert (await classify(classifier, b"\x02")).predictions[0].label == "cat"
    await classifier.close()
    assert classifier.state == "draining"
    assert model.closed
    with pytest.raises(NotReady, match="shutting down"):
        await classify(classifier, b"x")
    with pytest.raises(NotReady):
        _ = classifier.model


@pytest.mark.parametrize(
    ("error", "reason"),
    [(CheckpointNotFound("no file here"), "no file here"), (RuntimeError(SECRET), "the model could not be loaded")],
)
async def test_a_failed_start_says_why(error: Exception, reason: str) -> None:
    def load() -> FakeModel:
        raise error

    classifier = Classifier(Settings(), Metrics(), decode_threads=1)
    with pytest.raises(type(error)):
        await classifier.start(load)
    assert (classifier.state, classifier.reasons) == ("failed", (reason,))
    await classifier.close()


async def test_a_model_that_comes_after_the_end_is_closed() -> None:
    model, loading, go = FakeModel(), threading.Event(), threading.Event()

    def load() -> FakeModel:
        loading.set()
        go.wait(5)
        return model

    classifier = Classifier(Settings(), Metrics(), decode_threads=1)
    start = asyncio.create_task(classifier.start(load))
    await asyncio.to_thread(loading.wait, 5)
    await classifier.close()
    go.set()
    await start
    assert model.closed
    assert classifier.state == "draining"


async def test_a_load_that_is_given_up_holds_nothing_up_and_closes_what_it_makes() -> None:
    model, go = FakeModel(), threading.Event()

    def load() -> FakeModel:
        go.wait(5)
        return model

    classifier = Classifier(Settings(), Metrics(), decode_threads=1)
    start = asyncio.create_task(classifier.start(load))
    await asyncio.sleep(0.05)
    assert all(t.daemon for t in threading.enumerate() if t.name == "load")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    go.set()
    await until(lambda: model.closed)


async def test_the_bytes_of_a_client_that_left_are_not_kept_for_its_turn() -> None:
    class Encoded(bytearray):  # plain bytes know no weak references
        pass

    gate = threading.Event()
    async with started(FakeModel(gate=gate)) as (classifier, _):
        for _ in range(2):  # every decoding thread is busy
            classifier.lanes.current().decode_pool.submit(gate.wait, 5)
        data = Encoded(b"y" * 1000)
        kept = weakref.ref(data)
        left = asyncio.create_task(classify(classifier, data))  # type: ignore[arg-type]
        del data
        await asyncio.sleep(0.05)
        left.cancel()
        await asyncio.wait([left])
        assert left.cancelled()
        del left
        gc.collect()
        assert kept() is None


async def test_the_times_travel_with_the_result() -> None:
    async with started(FakeModel(prepare_s=0.03, run_s=0.02)) as (classifier, metrics):
        found = await classify(classifier, b"x")
        assert found.timings.prepare_s >= 0.03
        assert found.timings.inference_s >= 0.02
        assert found.timings.queue_s >= 0
        value = metrics.registry.get_sample_value
        assert (value("sknet_phase_duration_seconds_sum", {"phase": "prepare"}) or 0) >= 0.03
        assert (value("sknet_phase_duration_seconds_sum", {"phase": "total"}) or 0) >= 0.05
        assert value("sknet_batch_size_count") == 1


async def test_what_became_of_each_image_is_counted_once() -> None:
    async with started(FakeModel(), max_body_bytes=100) as (classifier, metrics):
        await classify(classifier, b"x")
        for data, error in ((b"bad", ImageUndecodable), (b"poison", EngineError), (b"bug", RuntimeError)):
            with pytest.raises(error):
                await classify(classifier, data)
        with pytest.raises(MalformedRequest):
            await classify(classifier, b"")
        images: list[bytes | AppError] = [b"x", b"bad", b"x" * 101, MalformedRequest("unreadable")]
        await classifier.classify_many(images, top_k=None, min_score=0, deadline=within())
        counts = {outcome: count(metrics, outcome) for outcome in ("classified", "rejected", "failed", "late", "abandoned")}
        assert counts == {"classified": 2, "rejected": 5, "failed": 2, "late": 0, "abandoned": 0}


@pytest.mark.parametrize("slow", [{"prepare_s": 0.2}, {"run_s": 0.2}])
async def test_too_late_at_any_stage(slow: dict[str, float]) -> None:
    async with started(FakeModel(**slow)) as (classifier, metrics):  # type: ignore[arg-type]
        with pytest.raises(DeadlinePassed) as caught:
            await classify(classifier, b"x", 0.05)
        assert caught.value.limit == 0.05
        assert count(metrics, "late") == 1


async def test_a_deadline_that_has_passed_already_starts_nothing() -> None:
    async with started(FakeModel()) as (classifier, _):
        with pytest.raises(DeadlinePassed):
            await classify(classifier, b"x", -1)
        assert classifier.model.batches == []  # type: ignore[attr-defined]


async def test_a_full_queue_refuses_before_any_pixel_work() -> None:
    model = FakeModel(gate=threading.Event())
    prepared = model.prepared
    async with started(model, max_queue=3) as (classifier, _):
        first = asyncio.create_task(classify(classifier, b"first"))
        await until(model.entered.is_set)
        with pytest.raises(Overloaded):
            await classifier.classify_many([b"x"] * 3, top_k=None, min_score=0, deadline=within())
        assert prepared == [b"first"]
        two = asyncio.create_task(classifier.classify_many([b"x"] * 2, top_k=None, min_score=0, deadline=within()))
        await until(lambda: len(prepared) == 3)
        with pytest.raises(Overloaded):
            await classify(classifier, b"y")
        assert model.gate is not None
        model.gate.set()
        await asyncio.gather(first, two)
        assert (await classify(classifier, b"\x01")).predictions[0].wnid == "n00000001"


async def test_parameters_are_checked_before_any_work() -> None:
    async with started(FakeModel()) as (classifier, _):
        for top_k in (0, -1, 8):
            with pytest.raises(InvalidParameter) as caught:
                await classifier.classify(b"x", top_k=top_k, min_score=0, deadline=within())
            assert (caught.value.value, caught.value.limit) == (top_k, 7)
        assert classifier.model.batches == []  # type: ignore[attr-defined]


async def test_a_late_image_spoils_no_other_of_its_batch() -> None:
    model = FakeModel(gate=threading.Event())
    async with started(model) as (classifier, _):
        many = asyncio.create_task(classifier.classify_many([b"x", b"bad", b"x"], top_k=1, min_score=0, deadline=within(0.5)))
        _, results = await many
        assert [type(r) for r in results] == [DeadlinePassed, ImageUndecodable, DeadlinePassed]


async def test_a_batch_that_is_abandoned_frees_all_its_places() -> None:
    model = FakeModel(gate=threading.Event(), info=fake_info(batch_size=1))
    async with started(model) as (classifier, metrics):
        many = asyncio.create_task(classifier.classify_many([b"x"] * 5, top_k=1, min_score=0, deadline=within()))
        scheduler = classifier._current().scheduler
        await until(lambda: model.entered.is_set() and scheduler.ready + scheduler.unprepared == 4)
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many
        assert (scheduler.admitted, scheduler.ready, scheduler.unprepared) == (0, 0, 0)
        assert count(metrics, "abandoned") == 5


async def test_closing_answers_everybody_and_the_loop_goes_on() -> None:
    model = FakeModel(prepare_s=0.1)
    metrics = Metrics()
    classifier = Classifier(Settings(), metrics, decode_threads=1)
    await classifier.start(lambda: model)
    tasks = [asyncio.create_task(classify(classifier, b"x")) for _ in range(3)]
    await asyncio.sleep(0.02)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    beating = asyncio.create_task(beat())
    await classifier.close()
    beating.cancel()
    assert beats >= 5  # decoding was waited for, but not by the loop
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(r) for r in results] == [NotReady] * 3


async def test_work_of_many_clients_shares_batches() -> None:
    model = FakeModel(gate=threading.Event())
    async with started(model) as (classifier, _):
        first = asyncio.create_task(classify(classifier, b"\x00"))
        await until(model.entered.is_set)
        rest = [asyncio.create_task(classify(classifier, bytes([n]))) for n in range(1, 5)]
        await until(lambda: classifier._current().scheduler.ready == 4)
        assert model.gate is not None
        model.gate.set()
        found = await asyncio.gather(first, *rest)
        assert [f.predictions[0].index for f in found] == [0, 1, 2, 3, 4]
        assert [len(batch) for batch in model.batches] == [1, 4]


async def test_the_engine_gets_as_many_calls_side_by_side_as_it_wants() -> None:
    model = FakeModel(gate=threading.Event(), info=fake_info(streams=3, batch_size=1))
    async with started(model) as (classifier, _):
        tasks = [asyncio.create_task(classify(classifier, bytes([n]))) for n in range(5)]
        await until(lambda: len(model.batches) == 3)
        assert model.gate is not None
        model.gate.set()
        found = await asyncio.gather(*tasks)
        assert [f.predictions[0].index for f in found] == [0, 1, 2, 3, 4]
        assert {len(batch) for batch in model.batches} == {1}


async def test_the_warmed_up_speed_is_the_first_guess() -> None:
    info = replace(fake_info(), images_per_second=10.0)
    async with started(FakeModel(info=info)) as (classifier, _):
        assert classifier.retry_after() == 1
        with classifier._current().scheduler.admit(100, float("inf")):
            assert classifier.retry_after() == 10


@pytest.mark.parametrize("fault", [OutOfMemory, MemoryError])
async def test_a_batch_that_the_memory_does_not_hold_is_halved(fault: type[Exception]) -> None:
    class Small(FakeModel):
        def run(self, items: Sequence[Any]) -> Sequence[Any]:
            rows = super().run(items)
            if len(items) > 2:
                raise fault(SECRET)
            return rows

    model = Small(gate=threading.Event(), info=fake_info(batch_size=4))
    async with started(model) as (classifier, _):
        tasks = [asyncio.create_task(classify(classifier, bytes([n]))) for n in range(9)]
        await until(lambda: model.entered.is_set() and classifier._current().scheduler.ready >= 4)
        assert model.gate is not None
        model.gate.set()
        found = await asyncio.gather(*tasks)
        assert [f.predictions[0].index for f in found] == [n % 7 for n in range(9)]
        sizes = [len(batch) for batch in model.batches]
        assert max(sizes) > 2
        assert max(sizes[sizes.index(max(sizes)) + 1 :]) <= 2


async def test_a_timeout_inside_the_engine_is_no_deadline() -> None:
    class Hung(FakeModel):
        def run(self, items: Sequence[Any]) -> Sequence[Any]:
            raise TimeoutError(SECRET)

    async with started(Hung()) as (classifier, metrics):
        with pytest.raises(TimeoutError):
            await classify(classifier, b"x")
        assert (count(metrics, "failed"), count(metrics, "late")) == (1, 0)


async def test_what_would_be_refused_is_known_before_a_body_is_read() -> None:
    model = FakeModel(gate=threading.Event())
    metrics = Metrics()
    classifier = Classifier(Settings(max_queue=1), metrics, decode_threads=2)
    assert isinstance(classifier.refusal(1, within()), NotReady)
    await classifier.start(lambda: model)
    assert classifier.refusal(1, within()) is None
    assert isinstance(classifier.refusal(2, within()), Overloaded)
    busy = asyncio.create_task(classify(classifier, b"x"))
    await until(model.entered.is_set)
    refusal = classifier.refusal(1, within())
    assert isinstance(refusal, Overloaded)
    assert refusal.retry_after >= 1
    assert model.gate is not None
    model.gate.set()
    await busy
    assert classifier.refusal(1, within()) is None
    await classifier.close()
    assert isinstance(classifier.refusal(1, within()), NotReady)


async def test_the_bytes_of_a_bad_image_are_freed_with_its_error() -> None:
    class Encoded(bytearray):  # plain bytes know no weak references
        pass

    class Strict(FakeModel):
        def prepare(self, data: bytes) -> FakeItem:
            raise ImageUndecodable("no")

    async with started(Strict()) as (classifier, _):
        data = Encoded(b"x" * 1000)
        kept = weakref.ref(data)
        gc.collect()
        gc.disable()  # a circle would wait for it
        try:
            task = asyncio.create_task(classify(classifier, data))  # type: ignore[arg-type]
            del data
            await asyncio.wait([task])
            assert isinstance(task.exception(), ImageUndecodable)
            del task
            await until(lambda: kept() is None)
        finally:
            gc.enable()


async def test_an_array_comes_to_what_an_image_comes_to() -> None:
    async with started(FakeModel()) as (classifier, metrics):
        wanted = Wanted(top_k=2, function="none", scores=("softmax", "none"))
        found = await classifier.tell(np.full((3, 224, 224), 4.0, np.float32), wanted, within())
        assert [(p.label, p.score) for p in found.predictions] == [("elk", 3.0), ("fox", 2.0)]
        assert found.scores["softmax"].tolist() == [0.5 ** (n + 1) for n in (3, 4, 5, 6, 0, 1, 2)]
        assert found.scores["none"].tolist() == [0.0, -1.0, -2.0, -3.0, 3.0, 2.0, 1.0]
        assert found.image.format == "float32 array"
        assert count(metrics, "classified") == 1


async def test_an_array_that_is_no_input_is_a_bad_image() -> None:
    async with started(FakeModel()) as (classifier, metrics):
        bad = np.full((3, 224, 224), np.inf, np.float32)
        with pytest.raises(TensorUnusable):
            await classifier.tell(bad, Wanted(), within())
        _, (good, refused) = await classifier.tell_many([b"\x01", bad], Wanted(), within())
        assert isinstance(good, Classified)
        assert isinstance(refused, TensorUnusable)
        assert (count(metrics, "classified"), count(metrics, "rejected")) == (1, 2)
