"""This service under measurement, and what its metrics say; for the scripts that try it, not compare it."""

from __future__ import annotations

import asyncio
import re
import signal
import statistics
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn
from urllib.parse import urlsplit

import httpx

from app.bench import measure
from app.bench.client import Connection, post
from app.bench.load import LoadError
from app.bench.process import Service, ServiceError
from app.settings import Settings, load_settings

Samples = dict[str, float]
SAMPLE = re.compile(r"^(sknet_\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


@contextmanager
def serving(checkpoint: str | None, **changes: object) -> Iterator[tuple[Service, Settings]]:
    """`sknet serve` with the environment's settings and these changes, ready."""
    settings = load_settings({"checkpoint": checkpoint, **changes})
    with TemporaryDirectory() as folder, measure.service(settings, Path(folder)) as service:
        service.wait_until_ready(measure.READY, measure.START_S)
        yield service, settings


def address(service: Service) -> tuple[str, int]:
    """Host and port."""
    where = urlsplit(service.url)
    return str(where.hostname), int(str(where.port))


def metrics(service: Service) -> Samples:
    """Every sample of this service, by its name and labels, over a new connection: any worker may answer."""
    with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client:
        text = client.get("/metrics").text
    return {name: float(value) for name, value in SAMPLE.findall(text)}


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(v for k, v in samples.items() if k.partition("{")[0] == name and all(pair in k for pair in wanted))


async def lone_latency(service: Service, data: bytes, count: int) -> float:
    """Median seconds of a request that is alone."""
    host, port = address(service)
    connection = Connection(host, port)
    head, taken = post(host, "/classify", "image/jpeg", len(data)), []
    for _ in range(count):
        taken.append((await connection.ask(head, data)).seconds)
    connection.close()
    return statistics.median(taken)


async def seconds_until_idle(service: Service, data: bytes, idle_s: float, limit_s: float = 30) -> float:
    """From now until three requests one after the other take no longer than half as much again as when it was idle."""
    started = time.perf_counter()
    while time.perf_counter() - started < limit_s:
        at = time.perf_counter()
        if await lone_latency(service, data, 3) <= 1.5 * idle_s:
            return at - started
    return limit_s


def finish(running: Coroutine[None, None, int]) -> NoReturn:
    """Run to the end and exit with the status that comes of it; ended from outside, the service is ended as well."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(asyncio.run(running))
    except (ServiceError, LoadError) as error:
        sys.exit(str(error))


def verdicts(checks: dict[str, bool]) -> str:
    """One line a check."""
    return "\n".join(f"{'holds' if held else 'FAILS'}: {what}" for what, held in checks.items())
