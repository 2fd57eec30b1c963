"""What passes between a worker and its supervisor when the model changes: lines of JSON over a Unix socket of their own.

    worker -> supervisor   {"ask": "load", "id": 1, "checkpoint": REF}     a client or a signal asked this worker
    supervisor -> worker   {"do": "prepare", "id": 7, "checkpoint": REF}   load it beside the one that serves
    worker -> supervisor   {"done": 7, "error": null}                      or why not
    supervisor -> worker   {"do": "commit", "id": 8}                       once every worker has it; or "abort"
    supervisor -> worker   {"done": 1, "error": null}                      every worker has switched; or why none has

Not over the channel of the connections: those are passed one byte each, and a message between two of them would have to be told
from them. Knows nothing of models.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from app.errors import AppError, CheckpointRefused, NotReady, Overloaded

logger = logging.getLogger("sknet.workers")

MAX_TEXT = 2000  # characters of a reason; a line stays far below what a stream reads at once
Act = Callable[[str, str | None], Awaitable[None]]  # what, checkpoint (None: the configured one)


class Gone(Exception):
    """The other end is no longer there."""


class Peer:
    """One end: asks the other to act, and acts when the other asks. Both at once, any number at a time.

    Args:
        own: the word that this end's requests begin with, "ask" or "do".
        act: does what the other end asks for.
    """

    def __init__(self, end: socket.socket, own: str, act: Act) -> None:
        self._end = end
        self._own = own
        self._act = act
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._acting: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._gone = False

    async def listen(self) -> None:
        """Until the other end closes. Whoever still waits then is told that it is gone."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._end)
        try:
            while line := await reader.readline():
                self._heard(json.loads(line))
        except (OSError, ValueError) as error:  # cut short by the end of a process, or not one of ours
            logger.debug("the control channel ended: %s", error)
        finally:
            self._gone = True
            self._writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(Gone())
            for task in self._acting:
                task.cancel()

    async def ask(self, what: str, checkpoint: str | None = None) -> None:
        """Have the other end act, and wait until it has.

        Raises:
            AppError: what it raised, if it was one.
            RuntimeError: anything else that it raised, which its log has.
            Gone: it ended meanwhile.
        """
        if self._gone or self._writer is None:
            raise Gone
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send({self._own: what, "id": number, "checkpoint": checkpoint})
        try:
            await future
        finally:
            del self._waiting[number]

    def _heard(self, message: dict[str, Any]) -> None:
        if "done" in message:
            future = self._waiting.get(message["done"])
            if future is not None and not future.done():
                error = _error_of(message["error"])
                future.set_result(None) if error is None else future.set_exception(error)
            return
        what = message["do" if self._own == "ask" else "ask"]
        task = asyncio.create_task(self._do(what, message["id"], message["checkpoint"]), name=what)
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    async def _do(self, what: str, number: int, checkpoint: str | None) -> None:
        error: Exception | None = None
        try:
            await self._act(what, checkpoint)
        except Exception as raised:  # noqa: BLE001 - whatever it is, the other end waits for an answer
            error = raised
        if error is not None and not isinstance(error, AppError):
            logger.error("%s failed", what, exc_info=error)
        self._send({"done": number, "error": None if error is None else _words_of(error)})

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._gone:
            self._writer.write(json.dumps(message).encode() + b"\n")


def _words_of(error: Exception) -> dict[str, Any]:
    kind = type(error).__name__
    if isinstance(error, Overloaded):
        return {"kind": kind, "limit": error.limit, "retry_after": error.retry_after}
    if isinstance(error, NotReady):
        return {"kind": kind, "reasons": error.reasons}
    return {"kind": kind, "text": str(error)[:MAX_TEXT]}


def _error_of(words: dict[str, Any] | None) -> Exception | None:
    if words is None:
        return None
    match words["kind"]:
        case "Overloaded":
            return Overloaded("loads of a model", words["limit"], words["retry_after"])
        case "NotReady":
            return NotReady(words["reasons"])
        case "CheckpointRefused":
            return CheckpointRefused(words["text"])
        case kind:
            return RuntimeError(f"{kind} at the other end, whose log has it")
