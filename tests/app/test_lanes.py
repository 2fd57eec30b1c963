"""Which lane serves: swaps in every order that could hurt somebody, loads that fail, and the end. Without HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from app.classifier import Classified, Classifier
from app.context import Deadline
from app.errors import NotReady, Overloaded
from app.lanes import AT_ONCE
from app.metrics import Metrics
from app.settings import Settings
from model import child
from model.errors import CheckpointCorrupt
from model.guard import BEGIN_S
from model.types import Label, Prediction, ScoreFunction
from model.wire import PATIENCE
from tests.app.asgi import until
from tests.fakes import SECRET, FakeModel, fake_info

OTHER = tuple(Label(name) for name in ("hen", "owl", "pig"))


class Other(FakeModel):
    """Another model, with other labels and another digest."""

    def __init__(self, **more: Any) -> None:
        super().__init__(info=replace(fake_info(digest="1" * 64), labels=OTHER), **more)

    def top_k(self, row: Any, k: int, function: ScoreFunction = "softmax") -> tuple[Prediction, ...]:
        return tuple(Prediction(i, OTHER[i].name, 0.9) for i in range(k))


@asynccontextmanager
async def serving(model: FakeModel, **settings: Any) -> AsyncIterator[tuple[Classifier, Metrics]]:
    metrics = Metrics()
    classifier = Classifier(Settings(**settings), metrics, decode_threads=2)
    await classifier.start(lambda: model)
    try:
        yield classifier, metrics
    finally:
        await classifier.close()


def classify(classifier: Classifier, data: bytes = b"\x02", seconds: float = 10.0) -> asyncio.Task[Classified]:
    deadline = Deadline(asyncio.get_running_loop().time() + seconds, seconds)
    return asyncio.create_task(classifier.classify(data, top_k=1, min_score=0.0, deadline=deadline))


def loads(metrics: Metrics, outcome: str) -> float:
    return metrics.registry.get_sample_value("sknet_model_loads_total", {"outcome": outcome}) or 0.0


async def test_what_is_admitted_is_finished_by_the_old_model_which_then_is_closed() -> None:
    old, new = FakeModel(gate=threading.Event()), Other()
    async with serving(old) as (classifier, metrics):
        before = [classify(classifier, bytes([n])) for n in range(12)]  # more than a batch: some wait, some are prepared
        await until(old.entered.is_set)
        info = await classifier.load(lambda: new)
        assert (classifier.state, classifier.reasons, classifier.model) == ("ready", (), new)
        assert info.digest == classifier.model.info.digest == new.info.digest
        after = await classify(classifier)
        assert (after.info.digest, after.predictions[0].label) == (new.info.digest, "hen")
        assert not old.closed
        assert old.gate is not None
        old.gate.set()
        found = await asyncio.gather(*before)
        assert [f.predictions[0].index for f in found] == [n % 7 for n in range(12)]
        assert {f.info.digest for f in found} == {old.info.digest}
        await until(lambda: old.closed)
        assert not new.closed
        assert (loads(metrics, "loaded"), loads(metrics, "refused")) == (2, 0)
    assert new.closed


@pytest.mark.parametrize("cache", [0, 10])
async def test_who_read_the_old_lane_and_admits_after_the_switch_is_served_by_it(
    cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the lane and admission there is an await: the switch is made right there."""
    old, new, go = FakeModel(), Other(), asyncio.Event()
    async with serving(old, result_cache=cache) as (classifier, _):
        real, reached = classifier._key, asyncio.Event()

        async def held(*arguments: Any) -> Any:
            reached.set()
            await go.wait()
            return await real(*arguments)

        monkeypatch.setattr(classifier, "_key", held)
        one = classify(classifier)
        deadline = Deadline(asyncio.get_running_loop().time() + 10, 10)
        many = asyncio.create_task(classifier.classify_many([b"\x01", b"bad"], top_k=1, min_score=0, deadline=deadline))
        await reached.wait()
        await classifier.load(lambda: new)
        await asyncio.sleep(0.1)  # the old one has nothing admitted, and would be closed by now
        assert not old.closed
        go.set()
        found = await one
        info, results = await many
        assert found.info.digest == info.digest == old.info.digest
        assert isinstance(results[0], Classified)
        assert results[0].predictions[0].label == "bee"
        await until(lambda: old.closed)
        monkeypatch.undo()
        assert (await classify(classifier)).info.digest == new.info.digest


async def test_a_remembered_answer_is_of_the_model_that_answers() -> None:
    async with serving(FakeModel(), result_cache=10) as (classifier, _):
        assert (await classify(classifier)).predictions[0].label == "cat"
        await classifier.load(Other)
        assert (await classify(classifier)).predictions[0].label == "hen"
        same_weights_other_card = FakeModel()
        await classifier.load(lambda: same_weights_other_card)
        assert (await classify(classifier)).predictions[0].label == "cat"
        assert same_weights_other_card.batches == [[b"\x02"]]  # prepared as its own card says


@pytest.mark.parametrize("error", [CheckpointCorrupt("the file is damaged"), RuntimeError(SECRET), MemoryError()])
async def test_whatever_goes_wrong_leaves_the_old_one_serving(error: Exception) -> None:
    def load() -> FakeModel:
        raise error

    old = FakeModel()
    async with serving(old) as (classifier, metrics):
        with pytest.raises(type(error)):
            await classifier.load(load)
        assert (classifier.state, classifier.model) == ("ready", old)
        assert (await classify(classifier)).predictions[0].label == "cat"
        assert not old.closed
        assert (loads(metrics, "loaded"), loads(metrics, "refused")) == (1, 1)
        await classifier.load(Other)  # and the next one has its turn
        assert classifier.model is not old


def waiting(go: threading.Event, make: Callable[[], FakeModel], began: list[FakeModel]) -> Callable[[], FakeModel]:
    """A load that says that it began, and ends when told to."""

    def load() -> FakeModel:
        model = make()
        began.append(model)
        go.wait(10)
        return model

    return load


async def test_loads_have_their_turn_and_one_more_may_wait() -> None:
    go, began = threading.Event(), list[FakeModel]()
    async with serving(FakeModel()) as (classifier, _):
        first = asyncio.create_task(classifier.load(waiting(go, Other, began)))
        second = asyncio.create_task(classifier.load(waiting(go, FakeModel, began)))
        await until(lambda: began)
        for refused in (classifier.load(FakeModel), classifier.unload()):
            with pytest.raises(Overloaded) as caught:
                await refused
            assert (caught.value.limit, caught.value.retry_after) == (AT_ONCE, 1)
        assert len(began) == 1
        assert (await classify(classifier)).predictions[0].label == "cat"
        go.set()
        await first
        await second
        assert classifier.model is began[1]
        await until(lambda: began[0].closed)


async def test_unloaded_it_says_so_finishes_what_it_accepted_and_comes_back() -> None:
    old = FakeModel(gate=threading.Event())
    async with serving(old) as (classifier, metrics):
        before = classify(classifier)
        await until(old.entered.is_set)
        await classifier.unload()
        assert (classifier.state, classifier.reasons) == ("unloaded", ("the model was unloaded",))
        with pytest.raises(NotReady, match="was unloaded"):
            await classify(classifier)
        value = metrics.registry.get_sample_value
        assert value("sknet_ready_workers") == 0
        assert b"sknet_model_info{" not in metrics.render()
        assert old.gate is not None
        old.gate.set()
        assert (await before).predictions[0].label == "cat"
        await until(lambda: old.closed)
        with pytest.raises(CheckpointCorrupt):
            await classifier.load(damaged)
        assert classifier.state == "unloaded"
        await classifier.load(Other)
        assert (classifier.state, classifier.reasons, value("sknet_ready_workers")) == ("ready", (), 1)
        await classify(classifier)
        await classifier.unload()
        await classifier.unload()  # twice is once


def damaged() -> FakeModel:
    raise CheckpointCorrupt("no")


async def test_what_loads_is_told_while_nothing_serves() -> None:
    go, began = threading.Event(), list[FakeModel]()
    async with serving(FakeModel()) as (classifier, _):
        await classifier.unload()
        loading = asyncio.create_task(classifier.load(waiting(go, FakeModel, began)))
        await until(lambda: began)
        assert (classifier.state, classifier.reasons) == ("loading", ("the model is being loaded",))
        go.set()
        await loading


async def test_the_end_gives_up_what_loads_and_frees_everything() -> None:
    go, began = threading.Event(), list[FakeModel]()
    first, second = FakeModel(gate=threading.Event()), Other()
    async with serving(first) as (classifier, _):
        busy = classify(classifier)
        await until(first.entered.is_set)
        await classifier.load(lambda: second)  # the first one still drains
        loading = asyncio.create_task(classifier.load(waiting(go, FakeModel, began)))
        await until(lambda: began)
        classifier.drain()
        with pytest.raises(NotReady, match="shutting down"):
            await loading  # at once: whoever asked is told, and nobody waits for the load
        with pytest.raises(NotReady):
            await classifier.load(FakeModel)
        closing = asyncio.create_task(classifier.close())
        await asyncio.sleep(0.05)
        assert second.closed
        assert first.gate is not None
        first.gate.set()
        await closing
        assert (await busy).predictions[0].label == "cat"
        assert first.closed
        go.set()
        await until(lambda: began[0].closed)


async def test_a_signal_that_finds_the_metrics_locked_does_not_wait_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    locked, seen = True, list[bool]()
    async with serving(FakeModel()) as (classifier, _):
        # The code that a signal interrupted may hold the lock, and goes on only when the handler has returned.
        monkeypatch.setattr(classifier.lanes._metrics, "observe_drain", lambda: seen.append(locked))
        classifier.drain()
        locked = False
        assert classifier.state == "draining"
        await asyncio.sleep(0)
        assert seen == [False]


async def test_a_model_made_for_a_service_that_ends_is_closed() -> None:
    model = Other()
    async with serving(FakeModel()) as (classifier, _):
        made = await classifier.lanes.make(lambda: model)
        assert classifier.model is not made
        classifier.drain()
        with pytest.raises(NotReady):
            classifier.lanes.switch(made)
        assert model.closed


async def test_a_lane_that_nobody_leaves_is_closed_in_the_end() -> None:
    old = FakeModel()
    async with serving(old, drain_s=0, deadline_s=0.05) as (classifier, _):
        lane = classifier._current()
        with lane:
            await classifier.load(Other)
            await asyncio.sleep(0.1)
            assert not old.closed
            await until(lambda: old.closed)
            assert lane.users == 1


async def test_whoever_asked_may_leave_and_no_turn_is_lost() -> None:
    go, began = threading.Event(), list[FakeModel]()
    async with serving(FakeModel()) as (classifier, _):
        one, other = (asyncio.create_task(classifier.load(waiting(go, FakeModel, began))) for _ in range(2))
        await until(lambda: began)
        for task in (other, one):
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        await classifier.load(Other)
        assert classifier.model.info.labels == OTHER
        go.set()
        await until(lambda: began[0].closed)


def ours() -> int:
    """Threads of engines and loads."""
    return sum(thread.name.startswith(("engine", "load")) for thread in threading.enumerate())


async def test_two_hundred_swaps_leave_no_task_thread_or_series_behind() -> None:
    async with serving(FakeModel()) as (classifier, metrics):
        await classify(classifier)  # it brings its own threads and series
        await classifier.load(Other)
        await until(lambda: not classifier.lanes._retiring)
        tasks, threads = len(asyncio.all_tasks()), ours()
        size = metrics.render().count(b"\n")
        for _ in range(100):
            for kind in (FakeModel, Other):
                await classifier.load(kind)
                await classify(classifier)
        await until(lambda: not classifier.lanes._retiring)
        assert len(asyncio.all_tasks()) <= tasks
        await until(lambda: ours() <= max(threads, 1))  # the engine's one thread
        assert metrics.render().count(b"\n") == size
        assert metrics.render().count(b"sknet_model_info{") == 1


async def test_no_decoder_counts_as_stuck_that_keeps_within_its_time() -> None:
    async with serving(FakeModel(), stuck_s=0.1, decode_s=7.0) as (classifier, _):
        lane = classifier.lanes.current()
    assert lane.watchdog._limits["guarded decoder"] > BEGIN_S + PATIENCE * 7.0 + child._LAST_S
