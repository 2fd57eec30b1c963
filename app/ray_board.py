"""What the replicas of one Ray application tell each other: their metrics, and which checkpoint they serve.

A replica's counts are its own, and Ray hands `GET /metrics` to any of them. So each tells its own to a board, an actor that the
first replica makes, and whichever is asked shows those of all, with the label `replica`: sums and rates over it stay right when
replicas come and go, which a sum made here would not. Knows nothing of requests or models.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from app.metrics import Metrics

logger = logging.getLogger("sknet.ray")

NAMESPACE = "sknet"
EVERY_S = 2.0  # a replica tells its own
STALE_S = 5 * EVERY_S  # and is no longer shown when it has not: it is gone, or its node is
ASK_S = 2.0  # the board has to answer


Serves = tuple[str | None, ...]  # the checkpoint that a replica was told to serve, or nothing before it does


class Board:
    """What is known of each replica; an actor's class."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, tuple[float, bytes, Serves]] = {}

    def tell(self, replica: str, metrics: bytes, serves: Serves) -> None:
        """Put a replica's metrics, and what it serves, in the place of what it told before."""
        self._told[replica] = (self._clock(), metrics, serves)

    def forget(self, replica: str) -> None:
        """Show a replica no more."""
        self._told.pop(replica, None)

    def metrics(self) -> dict[str, bytes]:
        """Of each replica that is there, its metrics."""
        return {replica: metrics for replica, (_, metrics, _) in self._there()}

    def serving(self) -> list[str | None]:
        """The checkpoints that are served, the most usual one first; None is the one that the settings name."""
        told = Counter(reference for _, (_, _, serves) in self._there() for reference in serves)
        return [reference for reference, _ in told.most_common()]

    def _there(self) -> list[tuple[str, tuple[float, bytes, Serves]]]:
        oldest = self._clock() - STALE_S
        self._told = {replica: told for replica, told in self._told.items() if told[0] >= oldest}
        return sorted(self._told.items())


class Finds(Protocol):
    """How a replica comes to the board."""

    def __call__(self) -> Any:
        """The actor, made where there is none. May block."""


def board_of(application: str) -> Finds:
    """The board of an application of this cluster.

    It ends with the replica that made it, so that nothing stays behind; the next one that has something to tell makes another.
    """

    def find() -> Any:
        import ray

        options = {"name": f"board of {application}", "namespace": NAMESPACE, "get_if_exists": True, "num_cpus": 0}
        return ray.remote(Board).options(**options).remote()

    return find


class Reporter:
    """One replica's line to the board. The board may be gone at any time: then a replica knows of itself alone."""

    def __init__(self, replica: str, find: Finds, metrics: Metrics, serves: Callable[[], Serves]) -> None:
        self._replica = replica
        self._find = find
        self._metrics = metrics
        self._serves = serves
        self._board: Any = None

    async def run(self) -> None:
        """Tell what there is to tell, until cancelled; then take it back."""
        try:
            while True:
                await self._ask("tell", self._replica, self._metrics.render(), self._serves())
                await asyncio.sleep(EVERY_S)
        finally:
            with suppress(asyncio.CancelledError):
                await self._ask("forget", self._replica)

    async def all(self) -> bytes:
        """The metrics of every replica, this one's as they are now."""
        known = await self._ask("metrics") or {}
        return merged({**known, self._replica: self._metrics.render()})

    async def serving(self) -> list[str | None]:
        """As `Board.serving`. A board may have gone with the node that it was on: all have time to come to the next one."""
        end = time.monotonic() + STALE_S
        while not (found := await self._ask("serving")) and time.monotonic() < end:  # noqa: ASYNC110 - another process tells
            await asyncio.sleep(EVERY_S / 4)
        return found or []

    async def _ask(self, what: str, *words: object) -> Any:
        try:
            async with asyncio.timeout(ASK_S):
                if self._board is None:
                    self._board = await asyncio.to_thread(self._find)
                return await getattr(self._board, what).remote(*words)
        except Exception as error:  # noqa: BLE001 - whatever Ray says: no request may fail because of this
            logger.debug("the board of the replicas cannot be asked: %s", error)
            self._board = None
            return None


class ReportedMetrics(Metrics):
    """Metrics of one replica, which tells those of all when it is asked."""

    reporter: Reporter | None = None

    async def all(self) -> bytes:
        return self.render() if self.reporter is None else await self.reporter.all()


def merged(texts: Mapping[str, bytes]) -> bytes:
    """Several texts of the Prometheus format as one, each sample with the label `replica`.

    The format wants a family in one piece (its section "Grouping and sorting").
    """
    families: dict[str, tuple[list[str], list[str]]] = {}
    for replica, text in texts.items():
        label = f'replica="{replica}"'
        family: tuple[list[str], list[str]] = ([], [])
        for line in text.decode().splitlines():
            if line.startswith("# HELP "):
                family = families.setdefault(line.split(" ", 3)[2], ([], []))
                if not family[0]:
                    family[0].append(line)
            elif line.startswith("#"):
                if len(family[0]) < 2:
                    family[0].append(line)
            elif line:
                family[1].append(_labelled(line, label))
    lines = [line for head, samples in families.values() for line in (*head, *samples)]
    return "".join(f"{line}\n" for line in lines).encode()


def _labelled(sample: str, label: str) -> str:
    name, space, rest = sample.partition(" ")
    if "{" not in name:
        return f"{name}{{{label}}}{space}{rest}"
    name, _, rest = sample.partition("{")
    return f"{name}{{{label},{rest}"
