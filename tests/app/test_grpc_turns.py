"""Turns at reading: who gets one, who waits, and whose is taken back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.errors import Overloaded
from app.grpc_turns import Turns
from tests.app.asgi import until

LONG_S = 60.0


class Callers:
    """Calls that want a turn and keep it until they are let go."""

    def __init__(self, turns: Turns, limit_s: float = LONG_S) -> None:
        self.turns = turns
        self.limit_s = limit_s
        self.reading: list[str] = []
        self.over: dict[str, Any] = {}
        self.gone: dict[str, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, *names: str) -> None:
        """The first letter of a name is its peer."""
        for name in names:
            self.gone[name] = asyncio.Event()
            self.tasks.append(asyncio.create_task(self._call(name)))
            await asyncio.sleep(0)

    async def go(self, name: str) -> None:
        self.gone[name].set()
        await until(lambda: name in self.over)

    async def _call(self, name: str) -> None:
        try:
            async with self.turns.turn(name[0], asyncio.get_running_loop().time() + self.limit_s):
                self.reading.append(name)
                await self.gone[name].wait()
            self.over[name] = None
        except (Overloaded, TimeoutError) as error:
            self.over[name] = error

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_a_turn_goes_to_the_peer_with_the_fewest_and_to_its_newest_call() -> None:
    callers = Callers(Turns(2, 9, LONG_S))
    await callers.come("a1", "a2", "a3", "b1", "a4", "b2")
    assert callers.reading == ["a1", "a2"]
    await callers.go("a1")
    assert callers.reading[2:] == ["b2"]
    await callers.go("a2")
    assert callers.reading[3:] == ["a4"]
    await callers.end()


async def test_who_is_silent_for_long_makes_room_for_who_waits() -> None:
    callers = Callers(Turns(3, 9, 0.02))
    await callers.come("b1", "a1", "a2")
    await asyncio.sleep(0.05)
    assert callers.over == {}  # nobody waits
    await callers.come("c1")
    await until(lambda: "c1" in callers.reading)
    assert list(callers.over) == ["a1"]  # of the peer that had the most, though not the oldest of all
    assert isinstance(callers.over["a1"], Overloaded)
    assert callers.over["a1"].retry_after == 1
    await callers.end()


async def test_of_too_many_that_wait_the_oldest_of_the_peer_with_the_most_is_refused() -> None:
    callers = Callers(Turns(1, 3, LONG_S))
    await callers.come("a1", "b1", "a2", "a3", "a4")
    await until(lambda: callers.over)
    assert list(callers.over) == ["a2"]
    await callers.go("a1")
    assert callers.reading == ["a1", "a4"]
    await callers.end()


async def test_time_ends_a_turn_and_the_waiting_for_one() -> None:
    callers = Callers(Turns(1, 3, LONG_S), limit_s=0.02)
    await callers.come("a1", "a2")
    await until(lambda: len(callers.over) == 2)
    assert {type(error) for error in callers.over.values()} == {TimeoutError}
    await callers.come("a3")
    assert callers.reading == ["a1", "a3"]
    await callers.end()


async def test_a_call_that_is_given_up_leaves_its_place() -> None:
    callers = Callers(Turns(1, 3, LONG_S))
    await callers.come("a1", "a2")
    await callers.end()
    await callers.come("a3")
    assert callers.reading == ["a1", "a3"]
    await callers.end()


async def test_an_error_in_a_turn_is_its_own() -> None:
    turns = Turns(1, 3, LONG_S)
    for _ in range(2):
        with pytest.raises(ValueError, match="mine"):
            async with turns.turn("a", asyncio.get_running_loop().time() + LONG_S):
                raise ValueError("mine")
