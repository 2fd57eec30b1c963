"""Clients that leave: `python -m benchmarks.departures`.

Sends photographs whole and drops the connection before the answer. Holds that the engine ran fewer images than were sent, that
the processor's time agrees, that the queue is empty soon, and that later requests are served. Exit status 1 where one fails.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from pathlib import Path

from app.bench.client import Connection, post
from app.bench.process import Service
from benchmarks.ours import address, finish, metrics, serving, total, verdicts
from benchmarks.photographs import photographs
from benchmarks.report import publish, table

ANSWERED = 40  # requests that stay, for what one costs


async def drop(service: Service, data: bytes, count: int, within_s: float) -> int:
    """Send `count` requests at once, leave each within `within_s` of having sent it; return how many were sent whole."""
    host, port = address(service)
    head, rng, sent = post(host, "/classify", "image/jpeg", len(data)), random.Random(0), 0

    async def leave(after_s: float) -> None:
        nonlocal sent
        try:
            _, writer = await asyncio.open_connection(host, port)
            writer.write(head + data)
            await writer.drain()
            sent += 1
            await asyncio.sleep(after_s)
            writer.transport.abort()
        except OSError:
            return

    await asyncio.gather(*(leave(rng.uniform(0, within_s)) for _ in range(count)))
    return sent


async def answered(service: Service, data: bytes, count: int) -> int:
    """Send `count` requests one after the other; return how many were answered well."""
    host, port = address(service)
    head, connection = post(host, "/classify", "image/jpeg", len(data)), Connection(host, port)
    good = 0
    for _ in range(count):
        good += (await connection.ask(head, data)).ok
    connection.close()
    return good


async def until_empty(service: Service, limit_s: float = 15) -> float:
    """Seconds until the queue is 0."""
    started = time.perf_counter()
    while time.perf_counter() - started < limit_s:
        if total(await asyncio.to_thread(metrics, service), "sknet_queue_size") == 0:
            return time.perf_counter() - started
        await asyncio.sleep(0.02)
    return float("inf")


def ran(service: Service) -> float:
    """Images that the engine has run and that were waited for to the end."""
    return total(metrics(service), "sknet_phase_duration_seconds_count", phase="inference")


async def run(args: argparse.Namespace) -> int:
    data = photographs([]).small[0]
    with serving(args.checkpoint) as (service, _):
        await answered(service, data, ANSWERED)
        cpu = service.usage().cpu_s
        await answered(service, data, ANSWERED)
        core_s = (service.usage().cpu_s - cpu) / ANSWERED
        before, cpu = ran(service), service.usage().cpu_s
        sent = await drop(service, data, args.requests, args.within)
        empty_s = await until_empty(service)
        engine, cpu = ran(service) - before, service.usage().cpu_s - cpu
        later = await answered(service, data, ANSWERED)
        outcomes = {k: v for k, v in metrics(service).items() if k.startswith("sknet_images_total")}
    checks = {
        f"{sent} of {args.requests} were sent whole": sent > args.requests / 2,
        f"{engine:.0f} images run for somebody, of {sent} sent": engine < sent,
        f"processor: {cpu:.2f} s, where answering all costs {sent * core_s:.2f} s": cpu < sent * core_s,
        f"the queue was empty after {empty_s:.2f} s": empty_s < 10,
        f"{later} of {ANSWERED} later requests were served": later == ANSWERED,
    }
    text = f"{table([('images', 'number'), *((k, f'{v:.0f}') for k, v in outcomes.items())])}\n\n{verdicts(checks)}"
    figures = {"sent": sent, "ran": engine, "cpu_s": cpu, "core_s_each": core_s, "empty_s": empty_s, "later": later}
    publish("departures", "Departed clients", text, {**figures, "outcomes": outcomes, "held": all(checks.values())}, args.output)
    return 0 if all(checks.values()) else 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.departures", description=__doc__)
    parser.add_argument("--checkpoint", help="as SKNET_CHECKPOINT, which with the other settings counts here as well")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--within", type=float, default=0.3, help="seconds after which the last one leaves")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    finish(run(parser.parse_args()))


if __name__ == "__main__":
    main()
