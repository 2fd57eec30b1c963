"""One checkpoint in every worker: with real `Swaps` and fake models at the other ends of real sockets, in this process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from app import conductor as conductor_module
from app.classifier import Classifier
from app.conductor import Conductor
from app.errors import CheckpointRefused, NotReady, Overloaded
from app.metrics import Metrics
from app.settings import Settings
from app.swaps import Swaps
from model.errors import CheckpointCorrupt
from tests.app.asgi import until
from tests.fakes import FakeModel, fake_info


class Worker:
    """What a worker process is, without the process."""

    def __init__(self, conductor: Conductor, slot: int) -> None:
        self.slot = slot
        self.conductor = conductor
        self.bad: set[str] = set()  # checkpoints that it cannot load
        self.gate: threading.Event | None = None
        self.asked: list[str] = []
        self.made: list[FakeModel] = []
        self.told_to_end: list[str] = []
        ours, theirs = socket.socketpair()
        now = conductor.current
        settings = Settings(checkpoint="bundled:first")
        self.classifier = Classifier(settings, Metrics(), decode_threads=1)
        self.swaps = Swaps(
            self.classifier.lanes, settings, self.load, control=theirs, reference=now.checkpoint, loaded=now.loaded
        )
        self.member, self.listening = conductor.join(slot, ours, now, self._end)

    def _end(self, gently: bool) -> None:
        self.told_to_end.append("gently" if gently else "at once")

    def load(self, settings: Settings) -> FakeModel:
        self.asked.append(settings.checkpoint)
        if self.gate is not None:
            self.gate.wait(10)
        if settings.checkpoint in self.bad:
            raise CheckpointCorrupt(f"worker {self.slot} cannot read it")
        self.made.append(FakeModel(info=replace(fake_info(), checkpoint=settings.checkpoint)))
        return self.made[-1]

    async def start(self) -> Worker:
        await self.swaps.start()
        return self

    async def ready(self) -> Worker:
        await self.conductor.ready(self.member)
        return self

    @property
    def serves(self) -> str:
        return self.classifier.model.info.checkpoint

    async def end(self) -> None:
        """As if the process was gone."""
        if self.gate is not None:
            self.gate.set()
        self.conductor.part(self.member)
        await self.swaps.close()
        await asyncio.wait([self.listening])
        await self.classifier.close()


@asynccontextmanager
async def service(count: int = 2) -> AsyncIterator[tuple[Conductor, list[Worker]]]:
    conductor = Conductor()
    workers = [await (await Worker(conductor, slot).start()).ready() for slot in range(count)]
    try:
        yield conductor, workers
    finally:
        conductor.close()
        for worker in workers:
            await worker.end()


def serving(workers: list[Worker]) -> list[str]:
    return [worker.serves for worker in workers]


async def test_asked_by_one_all_switch_before_it_is_answered() -> None:
    async with service(3) as (_, workers):
        model = await workers[1].swaps.load("bundled:next")
        assert model is workers[1].made[-1]
        assert serving(workers) == ["bundled:next"] * 3
        await until(lambda: all(worker.made[0].closed for worker in workers))
        await workers[2].swaps.load(None)
        assert serving(workers) == ["bundled:first"] * 3


@pytest.mark.parametrize("bad", [0, 1, 2])
async def test_if_one_cannot_none_does_and_nothing_is_left_of_it(bad: int) -> None:
    async with service(3) as (conductor, workers):
        workers[bad].bad = {"bundled:next"}
        with pytest.raises(CheckpointRefused, match=f"worker {bad} cannot read it"):
            await workers[1].swaps.load("bundled:next")
        assert serving(workers) == ["bundled:first"] * 3
        assert conductor.current.turn == 0
        assert all(model.closed == (model.info.checkpoint == "bundled:next") for worker in workers for model in worker.made)
        await workers[1].swaps.load("bundled:other")
        assert serving(workers) == ["bundled:other"] * 3


async def test_the_first_loads_alone_so_that_the_others_find_what_it_made() -> None:
    async with service(2) as (_, workers):
        workers[0].gate = threading.Event()
        loading = asyncio.create_task(workers[1].swaps.load("bundled:next"))
        await until(lambda: workers[0].asked[1:])
        await asyncio.sleep(0.05)
        assert workers[1].asked == ["bundled:first"]
        workers[0].gate.set()
        await loading


async def test_all_are_unloaded_and_loaded_again() -> None:
    async with service() as (conductor, workers):
        await workers[0].swaps.unload()
        assert [worker.classifier.state for worker in workers] == ["unloaded"] * 2
        late = await (await Worker(conductor, 2).start()).ready()
        workers.append(late)
        assert (late.classifier.state, late.asked) == ("unloaded", [])
        await workers[1].swaps.load("bundled:next")
        assert serving(workers) == ["bundled:next"] * 3


async def test_one_that_is_started_again_serves_what_is_current() -> None:
    async with service() as (conductor, workers):
        await workers[0].swaps.load("bundled:next")
        await workers[1].end()
        workers[1] = await (await Worker(conductor, 1).start()).ready()
        assert workers[1].asked == ["bundled:next"]
        assert serving(workers) == ["bundled:next"] * 2


@pytest.mark.parametrize("change", ["load", "reload", "unload"])
async def test_one_that_was_being_started_meanwhile_catches_up(change: str) -> None:
    async with service() as (conductor, workers):
        late = Worker(conductor, 2)
        workers.append(late)
        if change == "unload":
            await workers[0].swaps.unload()
        else:
            await workers[0].swaps.load("bundled:next" if change == "load" else None)
        await late.start()
        assert late.asked == ["bundled:first"]
        assert late.serves == "bundled:first"
        await late.ready()
        assert late.asked[1:] == {"load": ["bundled:next"], "reload": ["bundled:first"], "unload": []}[change]
        assert {worker.classifier.state for worker in workers} == {"unloaded" if change == "unload" else "ready"}


async def test_one_that_cannot_catch_up_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    async with service() as (conductor, workers):
        late = await Worker(conductor, 2).start()
        workers.append(late)
        await workers[0].swaps.load("bundled:next")
        late.bad = {"bundled:next"}
        assert not await conductor.ready(late.member)
        assert late.told_to_end == ["gently"]
        assert "worker 2 cannot follow the others: worker 2 cannot read it" in caplog.messages
        await workers[0].swaps.load("bundled:other")  # without it
        assert (serving(workers[:2]), late.asked[2:]) == (["bundled:other"] * 2, [])


async def test_the_only_one_that_cannot_catch_up_serves_on_and_the_others_follow_it() -> None:
    async with service(1) as (conductor, workers):
        late = await Worker(conductor, 1).start()
        await workers[0].swaps.load("bundled:next")
        await workers.pop().end()
        workers.append(late)
        late.bad = {"bundled:next"}
        assert await conductor.ready(late.member)
        assert (late.serves, late.told_to_end) == ("bundled:first", [])
        workers.append(await (await Worker(conductor, 0).start()).ready())
        assert serving(workers) == ["bundled:first"] * 2


async def test_what_no_worker_could_prepare_is_never_served(caplog: pytest.LogCaptureFixture) -> None:
    async with service(0) as (conductor, workers):
        first = await Worker(conductor, 0).start()
        workers.append(first)
        before = conductor.current
        with pytest.raises(NotReady, match="the model is being loaded"):
            await first.swaps.load("bundled:nothing")
        conductor.reload()
        await until(lambda: not conductor._changes)
        assert any(
            "was not loaded once more: the service is not ready: the model is being" in message for message in caplog.messages
        )
        assert conductor.current is before
        await first.ready()
        await first.swaps.load("bundled:next")
        assert first.serves == "bundled:next"


@pytest.mark.parametrize("what", ["prepare", "abort", "commit", "unload"])
async def test_one_that_does_not_answer_keeps_nobody_waiting(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor_module, "PREPARE_S" if what == "prepare" else "ANSWER_S", 0.3)
    async with service(2) as (_, workers):
        silent = workers[1].member
        real = silent.peer.ask

        async def ask(asked: str, checkpoint: str | None = None) -> None:
            await (asyncio.Event().wait() if asked == what else real(asked, checkpoint))

        monkeypatch.setattr(silent.peer, "ask", ask)
        async with asyncio.timeout(10):
            if what == "unload":
                await workers[0].swaps.unload()
            elif what == "commit":
                await workers[0].swaps.load("bundled:next")
            else:
                workers[1].bad = {"bundled:next"}
                kind, why = (NotReady, "did not answer while") if what == "prepare" else (CheckpointRefused, "cannot read it")
                with pytest.raises(kind, match=why):
                    await workers[0].swaps.load("bundled:next")
        assert workers[1].told_to_end == ["at once"]
        assert workers[0].told_to_end == []
        await workers[0].swaps.load("bundled:other")
        assert workers[0].serves == "bundled:other"


@pytest.mark.parametrize("what", ["commit", "unload"])
async def test_one_that_fails_to_change_is_started_again(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(2) as (_, workers):

        def fail(*_: object) -> None:
            raise ValueError("it cannot")

        monkeypatch.setattr(workers[1].classifier.lanes, "switch" if what == "commit" else "rest", fail)
        await (workers[0].swaps.load("bundled:next") if what == "commit" else workers[0].swaps.unload())
        assert [worker.told_to_end for worker in workers] == [[], ["gently"]]


async def test_one_that_ends_while_it_loads_stops_the_change() -> None:
    async with service(3) as (_, workers):
        workers[2].gate = threading.Event()
        loading = asyncio.create_task(workers[0].swaps.load("bundled:next"))
        await until(lambda: workers[2].asked[1:])
        gone = workers.pop()
        await gone.end()
        with pytest.raises(NotReady, match="worker 2 ended while it loaded") as caught:
            await loading  # no CheckpointRefused: what the client sent is not to blame, and another try may do
        assert caught.value.retry_after == 1
        assert serving(workers) == ["bundled:first"] * 2


async def test_a_change_goes_on_when_the_worker_that_passed_it_on_ends() -> None:
    async with service(3) as (conductor, workers):
        workers[0].gate = threading.Event()
        loading = asyncio.create_task(workers[2].swaps.load("bundled:next"))
        await until(lambda: workers[0].asked[1:])
        gone = workers.pop()
        await gone.end()
        with pytest.raises((NotReady, asyncio.CancelledError)):
            await loading
        workers[0].gate.set()
        await until(lambda: not conductor._changes)
        assert len(set(serving(workers))) == 1  # all or none, never half of them


async def test_a_third_change_is_told_to_come_back() -> None:
    async with service() as (_, workers):
        workers[0].gate = threading.Event()
        two = [asyncio.create_task(workers[0].swaps.load(name)) for name in ("bundled:a", "bundled:b")]
        await until(lambda: workers[0].asked[1:])
        with pytest.raises(Overloaded) as caught:
            await workers[1].swaps.unload()
        assert (caught.value.limit, caught.value.retry_after) == (2, 1)
        workers[0].gate.set()
        await asyncio.gather(*two)
        assert serving(workers) == ["bundled:b"] * 2


async def test_at_the_end_whoever_waits_for_a_change_is_told() -> None:
    async with service() as (conductor, workers):
        workers[0].gate = threading.Event()
        loading = asyncio.create_task(workers[1].swaps.load("bundled:next"))
        await until(lambda: workers[0].asked[1:])
        conductor.close()
        for change in (loading, workers[1].swaps.unload()):
            with pytest.raises(NotReady, match="shutting down"):
                await change
        assert serving(workers) == ["bundled:first"] * 2


async def test_a_hangup_loads_the_configured_one_everywhere() -> None:
    async with service() as (conductor, workers):
        await workers[0].swaps.load("bundled:next")
        conductor.reload()
        await until(lambda: serving(workers) == ["bundled:first"] * 2)
        workers[0].bad = {"bundled:first"}
        before = conductor.current.turn
        conductor.reload()
        await until(lambda: not conductor._changes)
        assert conductor.current.turn == before


async def test_a_hangup_that_finds_nothing_to_load_with_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with service(0) as (conductor, workers):
        workers.append(await Worker(conductor, 0).start())
        workers[0].swaps.reload()
        await until(lambda: "loading it once more: the service is not ready: the model is being loaded" in caplog.messages)
