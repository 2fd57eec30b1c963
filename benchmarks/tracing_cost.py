"""What tracing costs: `python -m benchmarks.tracing_cost`. Ratios out of one run, the sides in turns.

Services that differ in nothing but tracing: off, every request sampled, and one in a hundred; their spans go to a collector
on loopback, in a process of its own. As requests a second, as the latency of a request that is alone, and as processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from app.bench.load import Load, form, put_load, wrk_path
from app.bench.process import Service
from benchmarks.ours import finish, lone_latency, serving
from benchmarks.photographs import photographs
from benchmarks.report import publish, table
from tests.otlp import collecting

SIDES: Mapping[str, Mapping[str, str]] = {
    "off": {},
    "always": {"SKNET_TRACING": "true", "OTEL_TRACES_SAMPLER": "always_on"},
    "1 in 100": {"SKNET_TRACING": "true", "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
}
Loads = dict[str, list[Load]]


def collect(to: Connection) -> None:
    """Be the collector: tell the address, then at each question the number of spans so far, until the other end closes."""
    with collecting(keep=False) as otlp:
        to.send(otlp.url)
        try:
            while True:
                to.recv()
                to.send(otlp.count)
        except EOFError:
            return


class Elsewhere:
    """The collector in its own process."""

    def __init__(self, line: Connection, process: SpawnProcess) -> None:
        self._line = line
        self.process = process
        self.url: str = line.recv()

    @property
    def spans(self) -> int:
        """How many it got so far."""
        self._line.send(None)
        return int(self._line.recv())


@contextmanager
def collector() -> Iterator[Elsewhere]:
    """One that runs for as long as this."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=collect, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Elsewhere(ours, process)
    finally:
        ours.close()
        process.join(10)
        if process.is_alive():
            process.terminate()


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """For what is started within."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def of_requests(services: Mapping[str, Service], data: bytes, connections: int, rounds: int, seconds: float) -> Loads:
    """The load of each side, one a round; the order turns, so that nobody always comes after the same one."""
    content_type, body = form(data, "file")
    found: Loads = {side: [] for side in services}
    sides = list(services)
    for number in range(rounds + 1):
        for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
            load = put_load(
                services[side],
                "/classify",
                content_type,
                [body],
                connections=connections,
                seconds=seconds if number else 1.0,
                wrk=wrk_path(),
            )
            if load.bad:
                sys.exit(f"{load.bad} bad answers of tracing {side}")
            if number:  # the first round warms up
                found[side].append(load)
    return found


def row(name: str, found: Loads) -> tuple[tuple[str, ...], dict[str, object]]:
    """Medians of the requests a second and of the processor time of each, and their ratios to off, round by round."""
    rates = {side: [load.requests_s for load in loads] for side, loads in found.items()}
    cores = {side: statistics.median(load.core_ms for load in loads) for side, loads in found.items()}
    ratios = {side: statistics.median(mine / off for mine, off in zip(rates[side], rates["off"], strict=True)) for side in rates}
    more = {side: (cores[side] - cores["off"]) * 1e3 for side in cores}
    cells = [f"{statistics.median(rates[side]):.1f}" for side in found]
    on = [side for side in found if side != "off"]
    cells += [f"{ratios[side]:.3f}" for side in on] + [f"{more[side]:+.0f}" for side in on]
    return (name, *cells), {"requests_s": rates, "core_ms": cores, "ratios": ratios, "more_us": more}


async def alone(services: Mapping[str, Service], data: bytes, rounds: int) -> dict[str, float]:
    """Median seconds of a request of each side when nothing else is asked, in turns."""
    found: dict[str, list[float]] = {side: [] for side in services}
    for _ in range(rounds):
        for side, service in services.items():
            found[side].append(await lone_latency(service, data, 20))
    return {side: statistics.median(values) for side, values in found.items()}


async def run(args: argparse.Namespace) -> int:
    figures: dict[str, object] = {"checkpoint": args.checkpoint}
    data = photographs(args.photographs).small[0]
    with collector() as elsewhere, ExitStack() as stack:
        services: dict[str, Service] = {}
        for side, variables in SIDES.items():
            with environment({**variables, "OTEL_EXPORTER_OTLP_ENDPOINT": elsewhere.url}):
                services[side], _ = stack.enter_context(serving(args.checkpoint, cache_dir=args.cache_dir))
        on = [side for side in SIDES if side != "off"]
        head = [*(f"{side}, req/s" for side in SIDES), *(f"{side} / off" for side in on), *(f"{side}, us more" for side in on)]
        rows: list[tuple[str, ...]] = [("load", *head)]
        for connections in map(int, args.connections.split(",")):
            cells, numbers = row(
                f"{connections} connections", of_requests(services, data, connections, args.rounds, args.seconds)
            )
            rows.append(cells)
            figures[f"connections_{connections}"] = numbers
        latency = await alone(services, data, args.rounds)
        rows.append(("alone, ms", *(f"{value * 1e3:.2f}" for value in latency.values()), *[""] * (2 * len(on))))
        figures["alone_s"] = latency
        await asyncio.sleep(6)  # the library sends every five seconds what is no whole batch
        figures["spans"] = elsewhere.spans
    text = f"{table(rows)}\n\nspans that arrived: {figures['spans']}"
    publish("tracing-cost", f"Cost of tracing, {args.checkpoint}", text, figures, args.output)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing_cost", description=__doc__)
    parser.add_argument("photographs", nargs="*", type=Path, help="files or folders; without, one that is made here")
    parser.add_argument("--checkpoint", default="bundled:cifar10", help="as SKNET_CHECKPOINT")
    parser.add_argument("--cache-dir", type=Path, help="as SKNET_CACHE_DIR")
    parser.add_argument("--connections", default="1,8", help="one measurement each")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    finish(run(parser.parse_args()))


if __name__ == "__main__":
    main()
