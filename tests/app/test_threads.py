"""Threads beside the loop: less urgent than it, and none that it waits for in vain."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

import pytest

from app import threads
from app.threads import MANY, YIELDING, beside, pool, written
from tests.app.asgi import serving, until


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


async def test_many_values_are_written_in_a_thread() -> None:
    assert await written(threading.current_thread, MANY) is threading.current_thread()
    assert await written(threading.current_thread, MANY + 1) is not threading.current_thread()


V2 = {"name": "image", "datatype": "BYTES", "shape": [2], "data": ["AQ==", "Ag=="]}
BODIES: dict[str, Any] = {
    "/classify/batch?top_k=7": {"images": ["AQ==", "Ag==", "YmFk"]},
    "/vertex/predict": {"instances": [{"b64": "AQ=="}, {"b64": "Ag=="}], "parameters": {"top_k": 7}},
    "/v2/models/default/infer": {"inputs": [V2], "outputs": [{"name": "logits", "parameters": {"classification": 7}}]},
}


@pytest.mark.parametrize("path", BODIES)
async def test_answers_are_the_same_however_many_values_they_have(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as service:
        answers = []
        for most in (10**9, 0):
            monkeypatch.setattr(threads, "MANY", most)
            got = await service.client.post(path, json=BODIES[path])
            assert got.status_code == 200, got.text
            answers.append(got.text)
    assert answers[0] == answers[1]
