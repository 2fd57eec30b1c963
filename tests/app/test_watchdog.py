"""The watchdog: what it barks at, and what it lets pass."""

from __future__ import annotations

import asyncio

import pytest

from app.watchdog import FAILURES, Part, Trouble, Watchdog
from tests.app.stepwise import Clock, settle

STUCK_S = 0.2  # of a clock that only tests move; the looks themselves are real, and four of them fit into it


class Line:
    """Calls at work, on a clock of its own."""

    def __init__(self, stuck_s: float = STUCK_S) -> None:
        self.clock = Clock()
        self.at_work: dict[Part, float] = {}
        self.watchdog = Watchdog(
            lambda: self.at_work, limits={"engine": stuck_s, "decoder": 2 * stuck_s, "guarded decoder": 10.0}, clock=self.clock
        )
        self.trouble = asyncio.create_task(self.watchdog.trouble())

    async def pass_time(self, seconds: float, step: float = 0.05) -> None:
        """In steps as small as the watchdog's looks, each of which it has time for."""
        for _ in range(round(seconds / step)):
            self.clock.now += step
            await asyncio.sleep(STUCK_S / 4 + 0.01)


async def test_a_call_that_does_not_come_back_is_trouble() -> None:
    line = Line()
    line.at_work["engine"] = line.clock.now
    await line.pass_time(0.15)
    assert not line.trouble.done()
    await line.pass_time(0.15)
    assert await line.trouble == Trouble("stuck engine", "a call of the engine has not come back for 0.2 s")


async def test_calls_that_come_back_and_a_line_at_rest_are_none() -> None:
    line = Line()
    for _ in range(4):
        line.at_work["decoder"] = line.clock.now
        await line.pass_time(0.1)
    line.at_work.clear()
    await line.pass_time(0.3)
    assert not line.trouble.done()
    line.trouble.cancel()


async def test_a_process_that_was_stopped_does_not_blame_its_calls() -> None:
    line = Line()
    line.at_work["engine"] = line.clock.now
    line.clock.now += 3600  # it slept, and so did the call
    await asyncio.sleep(0.1)
    assert not line.trouble.done()
    await line.pass_time(0.3)
    assert (await line.trouble).kind == "stuck engine"


async def test_failures_in_a_row_are_trouble_at_once() -> None:
    line = Line(stuck_s=3600)
    await settle()
    for _ in range(FAILURES - 1):
        line.watchdog.ended(RuntimeError("x"))
    line.watchdog.ended(None)  # one went well
    for _ in range(FAILURES - 1):
        line.watchdog.ended(RuntimeError("x"))
    await settle()
    assert not line.trouble.done()
    line.watchdog.ended(RuntimeError("x"))
    async with asyncio.timeout(0.5):  # it need not wait for its next look
        assert await line.trouble == Trouble("failing engine", f"the engine failed {FAILURES} times in a row")


@pytest.mark.parametrize("stuck_s", [0.2, 8.0, 3600.0])
def test_it_looks_often_enough_and_no_oftener_than_needed(stuck_s: float) -> None:
    watchdog = Watchdog(dict, limits={"engine": stuck_s, "decoder": 60.0, "guarded decoder": 60.0})
    assert watchdog._every_s <= min(stuck_s, 60.0) / 4
    assert watchdog._every_s <= 1


async def test_each_part_has_its_own_time() -> None:
    line = Line()
    line.at_work["decoder"] = line.clock.now
    await line.pass_time(0.3)
    assert not line.trouble.done()
    await line.pass_time(0.2)
    assert await line.trouble == Trouble("stuck decoder", "a call of the decoder has not come back for 0.4 s")
