"""Threads beside the loop: less urgent than it, and none that it waits for in vain."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest

from app.threads import YIELDING, beside, pool
from tests.app.asgi import until


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


LOWER = min(19, nice() + YIELDING) if sys.platform == "linux" else nice()


def test_threads_of_a_pool_yield_and_the_one_that_made_it_does_not() -> None:
    before = nice()
    with pool(2, "some") as executor:
        assert executor.submit(nice).result() == LOWER
        assert executor.submit(lambda: threading.current_thread().name).result().startswith("some")
    assert nice() == before


async def test_what_is_made_beside_yields_too() -> None:
    assert await beside(nice, lambda _: None) == LOWER


def test_where_it_is_forbidden_they_work_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    with pool(1, "some") as executor:
        assert executor.submit(lambda: 1).result() == 1


async def test_a_fault_is_told() -> None:
    def make() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await beside(make, lambda _: None)


async def test_what_comes_when_nobody_waits_is_disposed_of() -> None:
    go = threading.Event()
    disposed: list[int] = []

    def make() -> int:
        go.wait(5)
        return 7

    making = asyncio.create_task(beside(make, disposed.append))
    await asyncio.sleep(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    go.set()
    await until(lambda: disposed == [7])
