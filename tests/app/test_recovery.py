"""What the service does when its engine or decoder gets stuck, or fails: whoever waits is told, and the model is loaded anew."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from app import lanes
from app import recovery as module
from app.classifier import Classifier
from app.context import Deadline
from app.errors import NotReady
from app.lane import ABANDONED
from app.metrics import Metrics
from app.recovery import Recovery
from app.settings import Settings
from app.watchdog import FAILURES
from model.errors import DeviceError, EngineError, ModelError, OutOfMemory
from tests.app.asgi import until
from tests.fakes import FakeItem, FakeModel, fake_info

STUCK_S = 0.3


@dataclass
class Service:
    """A classifier that recovers; `models` are what it loads, one after the other, the last one again and again."""

    models: list[FakeModel | Exception]
    loaded: list[FakeModel] = field(default_factory=list)
    hopeless: list[Exception] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        settings = Settings(stuck_s=STUCK_S, decode_s=0.1)
        self.classifier = Classifier(settings, self.metrics, decode_threads=1)
        self.recovery = Recovery(self.classifier.lanes, self.metrics, self.load, self.hopeless.append)

    def load(self) -> FakeModel:
        model = self.models.pop(0) if len(self.models) > 1 else self.models[0]
        if isinstance(model, Exception):
            raise model
        self.loaded.append(model)
        return model

    async def classify(self, data: bytes = b"a", seconds: float = 10) -> str:
        deadline = Deadline(asyncio.get_running_loop().time() + seconds, seconds)
        found = await self.classifier.classify(data, top_k=1, min_score=0, deadline=deadline)
        return found.info.digest

    def counted(self, kind: str) -> float | None:
        return self.metrics.registry.get_sample_value("sknet_troubles_total", {"kind": kind})


@asynccontextmanager
async def serving(*models: FakeModel | Exception) -> AsyncIterator[Service]:
    service = Service(list(models))
    await service.classifier.start(service.load)
    try:
        yield service
    finally:
        await service.recovery.close()
        await service.classifier.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays between loads that a test has the time for."""
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(module, "LONGEST_DELAY_S", 0.05)
    monkeypatch.setattr(lanes, "DECODER_START_S", 0.0)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Stuck calls end with the test, so that no thread outlives it."""
    gate = threading.Event()
    yield gate
    gate.set()


class Endless(FakeModel):
    """Its decoder waits for a gate."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__()
        self.tried = threading.Event()
        self._gate = gate

    def prepare(self, data: bytes) -> FakeItem:
        self.tried.set()
        self._gate.wait(10)
        return super().prepare(data)


async def outcome(work: asyncio.Task[str]) -> str:
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - what it is, is asserted
        return f"{type(error).__name__}: {error}"


async def test_a_stuck_engine_is_given_up_and_another_one_serves(gate: threading.Event) -> None:
    stuck, good = FakeModel(gate=gate), FakeModel()
    async with serving(stuck, good) as service:
        waiting = [asyncio.create_task(service.classify(bytes([65 + i]))) for i in range(4)]
        assert await asyncio.to_thread(stuck.entered.wait, 10)
        for told in [await outcome(work) for work in waiting]:
            assert told == "NotReady: the service is not ready: a call of the engine has not come back for 0.3 s"
        await until(lambda: service.classifier.state == "ready")
        assert await service.classify() == good.info.digest
        assert good.batches
        assert service.counted("stuck engine") == 1
        assert not stuck.closed  # a call is still inside of it
        gate.set()
        await until(lambda: stuck.closed)  # it came back at last, and its memory with it


async def test_why_it_is_not_ready_is_told_until_it_is(gate: threading.Event) -> None:
    tried, go, mended = threading.Event(), threading.Event(), threading.Event()

    def load() -> FakeModel:
        tried.set()
        assert go.wait(10)
        if not mended.is_set():
            raise DeviceError("there is no such device any more")
        return FakeModel()

    async with serving(FakeModel(gate=gate)) as service:
        service.recovery._load = load
        work = asyncio.create_task(service.classify())
        assert await asyncio.to_thread(tried.wait, 10)
        stuck = "a call of the engine has not come back for 0.3 s"
        assert service.classifier.reasons == (f"{stuck}; the model is being loaded anew",)
        go.set()
        failed = (f"{stuck}; loading the model anew failed: there is no such device any more",)
        await until(lambda: service.classifier.reasons == failed)
        assert service.classifier.state == "recovering"
        mended.set()
        await until(lambda: service.classifier.state == "ready")
        assert not service.classifier.reasons
        assert "not come back" in await outcome(work)


async def test_failures_in_a_row_have_it_loaded_anew_but_single_ones_do_not() -> None:
    bad, good = FakeModel(), FakeModel()
    async with serving(bad, good) as service:
        for _ in range(FAILURES):
            with pytest.raises(EngineError):
                await service.classify(b"poison")
            await service.classify(b"fine")
        assert service.loaded == [bad]
        for _ in range(FAILURES):
            with pytest.raises((EngineError, NotReady)):
                await service.classify(b"poison")
        await until(lambda: service.classifier.state == "ready")
        assert service.loaded == [bad, good]
        await until(lambda: bad.closed)
        assert service.counted("failing engine") == 1


async def test_a_stuck_decoder_gets_new_threads(gate: threading.Event) -> None:
    async with serving(Endless(gate), FakeModel()) as service:
        work = asyncio.create_task(service.classify())
        assert "a call of the decoder has not come back" in await outcome(work)
        await until(lambda: service.classifier.state == "ready")
        assert await service.classify()  # the only thread of the old pool is still inside
        assert service.counted("stuck decoder") == 1
        gate.set()


async def test_a_decoder_that_is_stuck_in_a_replaced_lane_is_no_matter_of_the_one_that_serves(gate: threading.Event) -> None:
    stuck, good = Endless(gate), FakeModel()
    async with serving(stuck, good) as service:
        work = asyncio.create_task(service.classify())
        await until(stuck.tried.is_set)
        await service.classifier.load(service.load)
        assert "a call of the decoder has not come back" in await outcome(work)
        assert [await service.classify() for _ in range(3)] == [good.info.digest] * 3
        assert service.loaded == [stuck, good]
        assert any(thread.name == ABANDONED for thread in threading.enumerate())  # it waits for the decoder too


async def test_a_decoder_that_waits_for_another_process_has_more_time(gate: threading.Event) -> None:
    slow = Endless(gate)
    slow.apart = 1
    async with serving(slow) as service:
        work = asyncio.create_task(service.classify())
        await until(slow.tried.is_set)
        await asyncio.sleep(STUCK_S * 1.5)
        assert not work.done()
        assert service.classifier.state == "ready"
        gate.set()
        assert await work


async def test_what_was_decided_while_it_was_loaded_anew_holds(gate: threading.Event) -> None:
    """In a worker a commit and an unload come without taking turns."""
    other = FakeModel()
    for state in ("unloaded", "ready"):
        loading, go = threading.Event(), threading.Event()
        again = FakeModel()

        def slow(loading: threading.Event = loading, go: threading.Event = go, again: FakeModel = again) -> FakeModel:
            loading.set()
            go.wait(10)
            return again

        async with serving(FakeModel(gate=gate)) as service:
            service.recovery._load = slow
            assert "NotReady" in await outcome(asyncio.create_task(service.classify()))
            assert await asyncio.to_thread(loading.wait, 10)
            lanes_of = service.classifier.lanes
            lanes_of.rest() if state == "unloaded" else lanes_of.switch(other)
            go.set()
            await until(lambda again=again: again.closed)
            assert service.classifier.state == state
            assert state == "unloaded" or service.classifier.model is other


async def test_a_batch_without_memory_is_no_failing_engine() -> None:
    class Small(FakeModel):
        def run(self, items: Sequence[Any]) -> Sequence[Any]:
            if len(items) > 1:
                raise OutOfMemory("too many")
            return super().run(items)

    model = Small(info=fake_info(batch_size=32), run_s=0.02)
    async with serving(model) as service:
        found = await asyncio.gather(*(service.classify(bytes([i + 1])) for i in range(40)))
        assert found == [model.info.digest] * 40
        assert service.loaded == [model]


async def test_what_hangs_again_and_again_ends_the_process(gate: threading.Event) -> None:
    async with serving(*(FakeModel(gate=gate) for _ in range(10))) as service:
        for _ in range(module.MOST_ABANDONED):
            assert "NotReady" in await outcome(asyncio.create_task(service.classify()))
            await until(lambda: service.classifier.state == "ready" or bool(service.hopeless))
        (told,) = service.hopeless
        assert isinstance(told, ModelError)
        assert "started anew" in str(told)
        assert service.classifier.reasons == (str(told),)
        assert len(service.loaded) == module.MOST_ABANDONED
        gate.set()
    await until(lambda: not any(thread.name == ABANDONED for thread in threading.enumerate()))


@pytest.mark.parametrize("act", ["unload", "load"])
async def test_what_an_admin_does_meanwhile_ends_it(act: str, gate: threading.Event) -> None:
    broken = DeviceError("gone")
    async with serving(FakeModel(gate=gate), broken) as service:
        await outcome(asyncio.create_task(service.classify()))
        await until(lambda: "loading the model anew failed" in "".join(service.classifier.reasons))
        if act == "load":
            await service.classifier.load(FakeModel)
            assert await service.classify()
        else:
            await service.classifier.unload()
        attempts = service.metrics.registry.get_sample_value("sknet_model_loads_total", {"outcome": "refused"})
        await asyncio.sleep(0.2)
        assert service.metrics.registry.get_sample_value("sknet_model_loads_total", {"outcome": "refused"}) == attempts
        assert service.classifier.state == {"load": "ready", "unload": "unloaded"}[act]
        gate.set()


async def test_a_service_that_ends_does_not_wait_for_what_is_stuck(gate: threading.Event) -> None:
    stuck = FakeModel(gate=gate)
    async with serving(stuck) as service:
        work = asyncio.create_task(service.classify())
        assert await asyncio.to_thread(stuck.entered.wait, 10)
        async with asyncio.timeout(5):
            await service.classifier.close()
        assert "NotReady" in await outcome(work)
        assert len(service.loaded) == 1
        gate.set()
        await until(lambda: stuck.closed)


async def test_a_lane_that_serves_no_more_is_watched_to_its_end(gate: threading.Event) -> None:
    stuck, good = FakeModel(gate=gate), FakeModel()
    async with serving(stuck, good) as service:
        work = asyncio.create_task(service.classify())
        assert await asyncio.to_thread(stuck.entered.wait, 10)
        await service.classifier.load(service.load)
        assert await service.classify() == good.info.digest
        assert "NotReady" in await outcome(work)
        assert service.classifier.state == "ready"
        assert service.loaded == [stuck, good]
        gate.set()


async def test_watches_end_with_their_lanes() -> None:
    def watches() -> int:
        return sum(task.get_name() == "watch" for task in asyncio.all_tasks())

    models: Callable[[], FakeModel] = FakeModel
    async with serving(FakeModel()) as service:
        assert watches() == 1
        for _ in range(3):
            await service.classifier.load(models)
        await until(lambda: watches() == 1)
    await until(lambda: watches() == 0)
