"""Names looked up beside the loop: what is asked of the system, and that a slow name server holds nothing up."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from app.errors import Overloaded
from app.resolver import Resolver
from tests.app.asgi import until


async def test_the_system_is_asked_for_the_absolute_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def getaddrinfo(host: Any, port: Any, **options: Any) -> list[Any]:
        asked.append(host)
        v4, v6 = ("192.0.2.1", 0), ("2001:db8::1", 0, 0, 0)
        return [(socket.AF_INET6, 1, 6, "", v6), (socket.AF_INET, 1, 6, "", v4), (socket.AF_INET, 2, 17, "", v4)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert await Resolver()("images.example.org") == ["2001:db8::1", "192.0.2.1"]
    assert asked == [b"images.example.org."]  # the search list of resolv.conf is not gone through


async def test_a_name_that_is_not_there() -> None:
    def look_up(host: str) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    with pytest.raises(OSError, match="not known"):
        await Resolver(look_up)("nowhere.example.org")


async def test_slow_lookups_are_bounded_and_hold_up_nobody() -> None:
    gate = threading.Event()

    def look_up(host: str) -> Sequence[str]:
        if host == "slow.example.org":
            assert gate.wait(20)
        return [host]

    resolver = Resolver(look_up, lookups=2)
    slow = [asyncio.create_task(resolver("slow.example.org")) for _ in range(2)]
    try:
        await until(lambda: resolver._busy == 2)
        with pytest.raises(Overloaded) as full:
            await resolver("quick.example.org")
        assert full.value.limit == 2
        assert await asyncio.to_thread(lambda: 3) == 3  # the loop's own threads are free
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert resolver._busy == 2  # given up, but the threads are still there
    finally:
        gate.set()
    await until(lambda: resolver._busy == 0)
    assert await resolver("quick.example.org") == ["quick.example.org"]


async def test_a_process_without_threads_left(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(lambda host: [host])

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(Overloaded):
            await resolver("a.example.org")
    assert await resolver("a.example.org") == ["a.example.org"]


def test_a_loop_that_ended_meanwhile() -> None:
    gate, done = threading.Event(), threading.Event()

    def look_up(host: str) -> Sequence[str]:
        try:
            assert gate.wait(20)
            return []
        finally:
            done.set()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await Resolver(look_up)("slow.example.org")

    asyncio.run(leave())
    gate.set()
    assert done.wait(5)  # an error in that thread would fail the run: warnings are errors
