"""When requests are sent: as many as the service can take for a while, then a part of that, at random moments.

The moments do not wait for answers, so a slow service meets as much load as a fast one. How late requests were sent is told: a
load generator that lags measures itself.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.bench.client import keep_busy
from benchmarks.soak.clients import Clients
from benchmarks.soak.forms import KINDS, Form

CONNECTIONS = 8  # while the sustainable load is measured
MOST_AT_ONCE = 2000  # requests under way: more, and the service has long stopped answering
END_S = 70  # for the last answers; a client gives up after 60


@dataclass
class Pace:
    """How well the load was kept up."""

    lags: list[float] = field(default_factory=list)  # seconds between the moment a request was due and its start
    skipped: int = 0


async def sustainable(host: str, port: int, forms: Sequence[Form], seconds: float) -> float:
    """Good requests a second, from clients that ask again as soon as they are answered."""
    tally = await keep_busy(host, port, [(form.head, form.body) for form in forms], CONNECTIONS, seconds)
    if tally.broken or tally.refused or not tally.seconds:
        raise RuntimeError(f"{len(tally.seconds)} good answers, {tally.refused} refused, {tally.broken} broken before the load")
    return len(tally.seconds) / seconds


async def put(clients: Clients, rate: float, seconds: float, seed: int = 0) -> Pace:
    """Requests of every kind at `rate` a second on average (a Poisson process), and the end of the last of them."""
    rng, pace = random.Random(seed), Pace()
    names, weights = list(KINDS), list(KINDS.values())
    under_way: set[asyncio.Task[None]] = set()
    due = started = time.perf_counter()
    while (due := due + rng.expovariate(rate)) < started + seconds:
        pause_s = due - time.perf_counter()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        elif len(pace.lags) % 20 == 0:
            await asyncio.sleep(0)  # behind: answers are still read
        pace.lags.append(max(0.0, time.perf_counter() - due))
        if len(under_way) >= MOST_AT_ONCE:
            pace.skipped += 1
            continue
        task = asyncio.create_task(clients.send(rng.choices(names, weights)[0]))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    if under_way:
        done, late = await asyncio.wait(under_way, timeout=END_S)
        for task in late:
            task.cancel()
        for task in done:
            task.result()
    return pace
