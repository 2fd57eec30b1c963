"""The line between a worker and its supervisor: both ends ask and act at once, errors cross it, and an end that goes is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.control import Gone, Peer
from app.errors import CheckpointRefused, NotReady, Overloaded
from tests.fakes import SECRET


class End:
    """One end, which does what a test lets it."""

    def __init__(self, end: socket.socket, own: str) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.peer = Peer(end, own, self._act)
        self.listening = asyncio.create_task(self.peer.listen())

    async def _act(self, what: str, checkpoint: str | None) -> None:
        self.asked.append((what, checkpoint))
        await self.go.wait()
        if self.error is not None:
            raise self.error

    async def end(self) -> None:
        self.listening.cancel()
        await asyncio.gather(self.listening, return_exceptions=True)


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[End, End]]:
    one, other = socket.socketpair()
    worker, supervisor = End(one, "ask"), End(other, "do")
    await asyncio.sleep(0.01)
    try:
        yield worker, supervisor
    finally:
        for each in (worker, supervisor):
            await each.end()


async def test_both_ask_at_once_and_each_is_answered() -> None:
    async with ends() as (worker, supervisor):
        supervisor.go.clear()
        load = asyncio.create_task(worker.peer.ask("load", "bundled:x"))
        await asyncio.sleep(0.01)
        await supervisor.peer.ask("prepare", "bundled:x")  # while the other is not answered yet
        await supervisor.peer.ask("commit")
        assert worker.asked == [("prepare", "bundled:x"), ("commit", None)]
        assert not load.done()
        supervisor.go.set()
        await load
        assert supervisor.asked == [("load", "bundled:x")]


@pytest.mark.parametrize(
    "error",
    [
        CheckpointRefused("the file is damaged\nand so on " + "x" * 5000),
        Overloaded("loads of a model", 2, 7),
        NotReady(("the service is shutting down",)),
    ],
)
async def test_errors_arrive_as_what_they_were(error: Any) -> None:
    async with ends() as (worker, supervisor):
        supervisor.error = error
        with pytest.raises(type(error)) as caught:
            await worker.peer.ask("load")
        assert str(caught.value)[:100] == str(error)[:100]
        assert vars(caught.value) == vars(error)


async def test_of_other_errors_only_the_kind_arrives() -> None:
    async with ends() as (worker, supervisor):
        supervisor.error = ValueError(SECRET)
        with pytest.raises(RuntimeError, match="ValueError at the other end") as caught:
            await worker.peer.ask("load")
        assert SECRET not in str(caught.value)


async def test_an_end_that_goes_is_told_and_what_it_asked_for_is_given_up() -> None:
    async with ends() as (worker, supervisor):
        worker.go.clear()
        asking = asyncio.create_task(supervisor.peer.ask("prepare", "x"))
        await asyncio.sleep(0.01)
        await worker.end()
        with pytest.raises(Gone):
            await asking
        with pytest.raises(Gone):
            await supervisor.peer.ask("commit")
        with pytest.raises(Gone):
            await worker.peer.ask("load")


async def test_whoever_asked_may_leave() -> None:
    async with ends() as (worker, supervisor):
        supervisor.go.clear()
        asking = asyncio.create_task(worker.peer.ask("load"))
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
        supervisor.go.set()
        await worker.peer.ask("unload")  # the late answer to the first one disturbs nobody
        assert [what for what, _ in supervisor.asked] == ["load", "unload"]


async def test_what_is_no_line_of_ours_ends_it() -> None:
    one, other = socket.socketpair()
    with other:
        end = End(one, "ask")
        other.sendall(b"no json\n")
        await asyncio.wait_for(end.listening, 5)
        with pytest.raises(Gone):
            await end.peer.ask("load")
