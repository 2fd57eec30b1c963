"""Whose message is read: some at once, each for a short time where others wait, and the others in fair order. Knows no gRPC."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from app.errors import Overloaded

RETRY_AFTER_S = 1


@dataclass(eq=False, slots=True)
class _Turn:
    peer: str
    limit: asyncio.Timeout
    given: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    since: float = 0.0
    taken_back: bool = False


class Turns:
    """Turns at reading a message, of which nobody can tell how much has come before all of it has.

    A free turn goes to the peer that has the fewest, and of its calls to the newest: among calls that are silent it is the one
    that most likely is not. Where none is free, one that has lasted long is taken back, of the peer that has the most.

    Args:
        most: turns at once.
        waiting: calls that may wait for one; beyond them the oldest of the peer that has the most of them is refused.
        patience_s: how long a turn may last while others wait.
    """

    def __init__(self, most: int, waiting: int, patience_s: float) -> None:
        self._most = most
        self._most_waiting = waiting
        self._patience_s = patience_s
        self._held: list[_Turn] = []  # the oldest first, as those that wait
        self._waiting: list[_Turn] = []
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self, peer: str, until: float) -> AsyncIterator[None]:
        """A turn for one call, which ends at a time of the event loop whether it was given or not.

        Raises:
            TimeoutError: it ended. Overloaded: too many others wait, for a turn or for this one's.
        """
        turn: _Turn | None = None
        try:
            async with asyncio.timeout_at(until) as limit:
                turn = _Turn(peer, limit)
                try:
                    self._waiting.append(turn)
                    self._review()
                    await turn.given
                    yield
                finally:
                    (self._held if turn in self._held else self._waiting).remove(turn)
                    self._review()
        except TimeoutError:
            if turn is not None and turn.taken_back:
                raise Overloaded("calls whose message is waited for", self._most, RETRY_AFTER_S) from None
            raise

    def _review(self) -> None:
        while self._waiting and len(self._held) < self._most:
            held = Counter(turn.peer for turn in self._held)
            turn = min(reversed(self._waiting), key=lambda each: held[each.peer])
            self._waiting.remove(turn)
            self._held.append(turn)
            turn.since = asyncio.get_running_loop().time()
            if not turn.given.done():  # or its call has been given up in this moment
                turn.given.set_result(None)
        stay = [turn for turn in self._waiting if not turn.taken_back]
        if len(stay) > self._most_waiting:
            _take_back(stay, 1)
        self._watch()

    def _watch(self) -> None:
        last = [turn.since for turn in self._held if not turn.taken_back]
        if self._waiting and self._timer is None and last:
            self._timer = asyncio.get_running_loop().call_at(last[0] + self._patience_s, self._give_way)

    def _give_way(self) -> None:
        self._timer = None
        over = asyncio.get_running_loop().time() - self._patience_s
        leaving = sum(turn.taken_back for turn in self._held)
        late = [turn for turn in self._held if turn.since <= over and not turn.taken_back]
        _take_back(late, len(self._waiting) - leaving)
        self._watch()


def _take_back(turns: Iterable[_Turn], count: int) -> None:
    """End so many: of the peers that have the most of them, the oldest first."""
    of_peer = Counter(turn.peer for turn in turns)
    for turn in sorted(turns, key=lambda each: -of_peer[each.peer])[: max(count, 0)]:
        turn.taken_back = True
        turn.limit.reschedule(asyncio.get_running_loop().time())
