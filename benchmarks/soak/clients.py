"""The clients of a soak: each sends one request in the manner of its kind, and what came of it is counted.

Connections are kept and used again, as honest clients do. It decides neither when a request is sent nor of which kind it is.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.bench.client import Connection
from benchmarks.soak.forms import Form, labels_of

REUSE_S = 3.0  # a connection idle for longer is not used again: the service closes it after five
PIECES, BETWEEN_S = 8, 0.25  # of a body that comes slowly
LEAVES_WITHIN_S = 0.1
REFUSED = {"429"}  # not taken on, with word of when to come back; a 503 would be a fault, since a model serves all the time


@dataclass
class Tally:
    """What became of the requests of one kind."""

    sent: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    lost: int = 0  # sent, and never answered
    wrong: int = 0  # a good image of which the service said something else than before
    unlooked: Counter[str] = field(default_factory=Counter)  # answers of another status than must come, by what was sent
    seconds: list[float] = field(default_factory=list)  # of answers as they must be
    faults: Counter[str] = field(default_factory=Counter)  # why requests were lost

    @property
    def refused(self) -> int:
        return sum(self.codes[code] for code in REFUSED)

    @property
    def server_errors(self) -> int:
        return sum(count for code, count in self.codes.items() if code.startswith("5") and code not in REFUSED)


class Slow(Connection):
    """Sends its body in pieces, with pauses."""

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, request: bytes, body: bytes) -> None:
        writer.write(request)
        step = -(-len(body) // PIECES)
        for at in range(0, len(body), step):
            writer.write(body[at : at + step])
            await writer.drain()
            await asyncio.sleep(BETWEEN_S)


class Clients:
    """Everybody who asks one service."""

    def __init__(self, host: str, port: int, forms: Mapping[str, Sequence[Form]], seed: int = 0) -> None:
        self._address = host, port
        self._forms = forms
        self._rng = random.Random(seed)
        self._idle: list[tuple[float, Connection]] = []
        self.tallies = {kind: Tally() for kind in forms}

    async def send(self, kind: str) -> None:
        """One request of this kind, to its end."""
        form = self._rng.choice(self._forms[kind])
        tally = self.tallies[kind]
        tally.sent += 1
        if kind == "leaving":
            await self._leave(form)
            return
        connection = Slow(*self._address) if kind == "slow" else self._connection()
        try:
            answer = await connection.ask(form.head, form.body)
        except (OSError, EOFError, TimeoutError) as error:
            tally.lost += 1
            tally.faults[f"{form.name}: {type(error).__name__}"] += 1
            return
        if kind == "slow":
            connection.close()
        else:
            self._idle.append((time.monotonic(), connection))
        tally.codes[answer.code] += 1
        if answer.code != form.status:
            if answer.code not in REFUSED:
                tally.unlooked[f"{form.name}: {answer.code} for {form.status}"] += 1
            return
        tally.seconds.append(answer.seconds)
        if form.labels is not None and labels_of(answer.body) != form.labels:
            tally.wrong += 1

    def close(self) -> None:
        """Drop the connections that are kept."""
        for _, connection in self._idle:
            connection.close()
        self._idle.clear()

    def _connection(self) -> Connection:
        now = time.monotonic()
        while self._idle and now - self._idle[0][0] > REUSE_S:
            self._idle.pop(0)[1].close()
        return self._idle.pop()[1] if self._idle else Connection(*self._address)

    async def _leave(self, form: Form) -> None:
        """Go without waiting for the answer: when all is sent, or in the middle of the body."""
        sent = len(form.body) if self._rng.random() < 0.5 else len(form.body) // 2
        pause_s = self._rng.uniform(0, LEAVES_WITHIN_S)
        try:
            _, writer = await asyncio.open_connection(*self._address)
            writer.write(form.head + form.body[:sent])
            await writer.drain()
            await asyncio.sleep(pause_s)
            writer.transport.abort()
        except OSError:
            return


async def learn(host: str, port: int, forms: Sequence[Form]) -> tuple[Form, ...]:
    """Good forms with the classes that an idle service gives them.

    Raises:
        RuntimeError: one of them is not classified, or the cat is none.
    """
    connection, known = Connection(host, port), []
    for form in forms:
        answer = await connection.ask(form.head, form.body)
        labels = labels_of(answer.body)
        if answer.code != form.status or not labels or (form.name.startswith("chelsea") and labels != (b"cat",)):
            raise RuntimeError(f"{form.name}: {answer.code} {labels!r}")
        known.append(form.knows(labels))
    connection.close()
    return tuple(known)
