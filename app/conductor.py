"""One checkpoint in every worker: a change is prepared by all of them, and only then made by any; if one cannot, none does.

The supervisor's side of `app.control`. It knows nothing of models, and nothing of how workers are started.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from app.control import Gone, Peer
from app.errors import AppError, NotReady, Overloaded

logger = logging.getLogger("sknet.workers")

CLOSED = ("the service is shutting down",)
LOADING = ("the model is being loaded",)
AT_ONCE = 2  # one change under way, and one more that waits
PREPARE_S = 600.0  # a large checkpoint over a slow network, compiled on a busy machine
ANSWER_S = 10.0  # all else a worker does at once; one that was stopped would keep the turn for ever
End = Callable[[bool], None]  # ends the process; whether it may finish its requests


@dataclass(frozen=True, slots=True)
class Current:
    """What the workers are to serve: the reference (None: the settings'), or nothing. `turn` counts the changes."""

    checkpoint: str | None = None
    loaded: bool = True
    turn: int = 0


@dataclass(slots=True, eq=False)
class Member:
    """One worker, and what it serves; it takes part in changes once it is ready."""

    slot: int
    peer: Peer
    serves: Current
    end: End
    ready: bool = False

    async def ask(self, what: str, checkpoint: str | None = None) -> None:
        """As `Peer.ask`. Raises TimeoutError as well: it does not answer."""
        async with asyncio.timeout(PREPARE_S if what == "prepare" else ANSWER_S):
            await self.peer.ask(what, checkpoint)


class Conductor:
    """Which checkpoint the workers serve, and how that changes in all of them together."""

    def __init__(self) -> None:
        self.current = Current()
        self._members: list[Member] = []
        self._turn = asyncio.Lock()
        self._asking = 0
        self._closed = False
        self._last_s = 1.0
        self._changes: set[asyncio.Task[None]] = set()

    def join(self, slot: int, line: socket.socket, started_with: Current, end: End) -> tuple[Member, asyncio.Task[None]]:
        """A worker that was just started, and the task that listens to it until it ends; then `part` with it.

        `end` is called for one that does not serve what all do, so that it is started again.
        """
        member = Member(slot, Peer(line, "do", self._asked), started_with, end)
        self._members.append(member)
        return member, asyncio.create_task(member.peer.listen(), name=f"control {slot}")

    def part(self, member: Member) -> None:
        """Forget a worker that ended."""
        if member in self._members:
            self._members.remove(member)

    async def ready(self, member: Member) -> bool:
        """It serves what it was started with, which may have changed since. Whether it now serves what all do."""
        async with self._turn:
            if member.serves.turn != self.current.turn:
                try:
                    await self._bring(member)
                except (AppError, RuntimeError) as error:
                    logger.error("worker %d cannot follow the others: %s", member.slot, error)
                    if any(other.ready for other in self._members):
                        self._drop(member)
                        return False
                    # It is the only one, and better than nothing: the others are to follow it.
                    self.current = replace(member.serves, turn=self.current.turn + 1)
                except (Gone, TimeoutError) as error:
                    self._lost(member, error)
                    return False
            member.serves, member.ready = self.current, True
            return True

    async def load(self, checkpoint: str | None) -> None:
        """Serve another checkpoint in every worker, or in none.

        Raises:
            CheckpointRefused: a worker cannot.
            AppError, RuntimeError: as the worker that cannot.
            Overloaded: a change is under way, and another waits.
            NotReady: no worker serves by now, one ended or did not answer meanwhile, or the service shuts down.
        """
        async with _Place(self):
            started = time.monotonic()
            members = [member for member in self._members if member.ready]
            if not members:  # nobody could say whether it can serve, and whoever is started next would have to
                raise NotReady(LOADING)
            try:
                # One alone at first: what only the first load ever has to make, the others find made.
                for some in (members[:1], members[1:]):
                    await self._each(some, lambda member: member.ask("prepare", checkpoint))
            except BaseException:
                await self._call_off(members)
                raise
            # From here on whoever is started gets the new one, and whoever is being started catches up.
            self.current = Current(checkpoint, True, self.current.turn + 1)
            await self._to_all(members, "commit")
            self._last_s = time.monotonic() - started
            logger.info("%d workers serve %s", len(members), checkpoint or "the configured checkpoint")

    async def unload(self) -> None:
        """Serve nothing, in any worker, until something is loaded. Raises Overloaded as `load`."""
        async with _Place(self):
            self.current = Current(self.current.checkpoint, False, self.current.turn + 1)
            await self._to_all([member for member in self._members if member.ready], "unload")

    def reload(self) -> None:
        """Load what the settings name once more, everywhere. For a signal: nobody waits."""

        async def load() -> None:
            try:
                await self.load(None)
            except (AppError, RuntimeError, Gone) as error:
                logger.error("the configured checkpoint was not loaded once more: %s", error)

        self._keep(load())

    def close(self) -> None:
        """Change nothing any more; whoever waits for a change is told so."""
        self._closed = True
        for task in self._changes:
            task.cancel()

    async def _asked(self, what: str, checkpoint: str | None) -> None:
        change = self._keep(self.load(checkpoint) if what == "load" else self.unload())
        try:
            # Half a change must not remain of it because the worker that passed it on has ended.
            await asyncio.shield(change)
        except asyncio.CancelledError:
            if change.cancelled():
                raise NotReady(CLOSED) from None
            raise

    def _keep(self, change: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(change, name="change")
        self._changes.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._changes.discard(task)
            if not task.cancelled():
                task.exception()  # told to whoever waits, if anybody still does

        task.add_done_callback(ended)
        return task

    async def _bring(self, member: Member) -> None:
        if not self.current.loaded:
            await member.ask("unload")
            return
        await member.ask("prepare", self.current.checkpoint)
        await member.ask("commit")

    async def _each(self, members: list[Member], ask: Callable[[Member], Awaitable[None]]) -> None:
        """All of them, to the end; then the first error, if there was any."""

        async def one(member: Member) -> None:
            try:
                await ask(member)
            except (Gone, TimeoutError) as error:
                how = self._lost(member, error)
                # It tells nothing of the checkpoint: the worker is started again, and another try may find it.
                raise NotReady((f"worker {member.slot} {how} while it loaded the checkpoint",)) from None

        for outcome in await asyncio.gather(*map(one, members), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _to_all(self, members: list[Member], what: str) -> None:
        """A worker that ends meanwhile, or fails, is started again with what is current."""

        async def one(member: Member) -> None:
            try:
                await member.ask(what)
                member.serves = self.current
            except (AppError, RuntimeError) as error:
                logger.error("worker %d did not %s: %s", member.slot, what, error)
                self._drop(member)
            except (Gone, TimeoutError) as error:
                self._lost(member, error)

        await asyncio.gather(*map(one, members))

    async def _call_off(self, members: list[Member]) -> None:
        async def one(member: Member) -> None:
            try:
                await member.ask("abort")
            except (AppError, RuntimeError) as error:
                logger.error("worker %d did not abort: %s", member.slot, error)
                self._drop(member)
            except (Gone, TimeoutError) as error:  # what it had prepared ends with it
                self._lost(member, error)

        await asyncio.gather(*map(one, members))

    def _lost(self, member: Member, error: Exception) -> str:
        """It ended, or is about to. How, in words."""
        how = "ended" if isinstance(error, Gone) else "did not answer"
        if member in self._members:
            logger.error("worker %d %s", member.slot, how)
            self._drop(member, gently=isinstance(error, Gone))
        return how

    def _drop(self, member: Member, *, gently: bool = True) -> None:
        """Have it end and be started again with what is current."""
        self.part(member)
        if not self._closed:  # else it is told to end anyway
            member.end(gently)


class _Place:
    """One of the places for changes, and its turn. Raises Overloaded where there is none left, NotReady at the end."""

    def __init__(self, conductor: Conductor) -> None:
        self._of = conductor

    async def __aenter__(self) -> None:
        if self._of._closed:
            raise NotReady(CLOSED)
        if self._of._asking >= AT_ONCE:
            raise Overloaded("loads of a model", AT_ONCE, max(1, math.ceil(self._of._last_s)))
        self._of._asking += 1
        try:
            await self._of._turn.acquire()
        except BaseException:
            self._of._asking -= 1
            raise

    async def __aexit__(self, *exc: object) -> None:
        self._of._asking -= 1
        self._of._turn.release()
