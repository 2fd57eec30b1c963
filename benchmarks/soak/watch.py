"""A service from outside, second by second: memory, descriptors, threads and processes, its children's included."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """What a service held at a moment, `at_s` seconds after the first one."""

    at_s: float
    rss_mib: float
    descriptors: int
    threads: int
    processes: int


def sample(pid: int, started: float) -> Sample:
    """Of a process and all below it. A process that ends meanwhile counts as gone."""
    rss = descriptors = threads = processes = 0
    waiting = [pid]
    while waiting:
        folder = PROC / str(waiting.pop())
        try:
            rss += int((folder / "statm").read_text().split()[1]) * PAGE
            descriptors += sum(1 for _ in (folder / "fd").iterdir())
            tasks = list((folder / "task").iterdir())
            threads += len(tasks)
            processes += 1
            for task in tasks:
                waiting += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return Sample(time.monotonic() - started, rss / 2**20, descriptors, threads, processes)


async def watch(pid: int, samples: list[Sample], every_s: float = 1.0) -> None:
    """Take samples until cancelled."""
    started = time.monotonic()
    while True:
        samples.append(sample(pid, started))
        await asyncio.sleep(every_s)


def floor(samples: Sequence[Sample], first: float, last: float, name: str) -> float:
    """What a field seldom falls below (its 10th percentile) in a part of the time, both ends from 0 to 1.

    Bursts of connections and a second model while it loads come and go; what leaks raises this.
    """
    chosen = sorted(float(getattr(each, name)) for each in samples[int(len(samples) * first) : int(len(samples) * last)])
    return chosen[len(chosen) // 10]
