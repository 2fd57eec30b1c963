"""How much a core and this machine serve, what stops them next, and the arithmetic to a target: `python -m benchmarks.scale`.

Measured, in turns in one run: the service on one core with the client on another; the service on every core, which the client
shares; and, one core each, what a request is made of: the engine alone, decoding alone, and everything else (the same image
asked again and again of a service that remembers answers, so that only HTTP, SHA-256 and JSON are left). Computed from there:
cores, machines, traffic and cost. The two are never mixed: the text says which is which, and what was assumed.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.bench import measure
from app.bench.client import Connection, get, post
from app.bench.load import put_load
from app.bench.process import Service
from app.main import load_model
from app.settings import load_settings
from benchmarks.ours import address, finish, serving
from benchmarks.photographs import photographs
from benchmarks.report import publish, table


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """This process, and what it starts meanwhile, on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Assumed:
    """What nobody can measure here: the numbers of a plan."""

    target: float  # requests a second
    load: float  # share of what a machine can do that a plan should ask of it
    cores: int  # of one machine
    gbit: float  # of its network
    price: float  # of a core for an hour


def plan(rate: float, request_bytes: float, answer_bytes: float, assumed: Assumed) -> dict[str, float]:
    """From requests a second of one core to a target: pure arithmetic."""
    cores = assumed.target / (rate * assumed.load)
    by_core = math.ceil(cores / assumed.cores)
    gbit_in = assumed.target * request_bytes * 8 / 1e9
    by_network = math.ceil(gbit_in / (assumed.gbit * assumed.load))
    return {
        "cores": math.ceil(cores),
        "machines": max(by_core, by_network),
        "machines_by_core": by_core,
        "machines_by_network": by_network,
        "gbit_in": gbit_in,
        "gbit_out": assumed.target * answer_bytes * 8 / 1e9,
        "gbit_in_a_machine": gbit_in / max(by_core, by_network),
        "core_hours_a_million": 1e6 / (rate * assumed.load) / 3600,
        "cost_a_million": 1e6 / (rate * assumed.load) / 3600 * assumed.price,
    }


def rate(service: Service, data: list[bytes], connections: int, seconds: float) -> float:
    """Requests a second, each photograph in turn."""
    put_load(service, "/classify", "image/jpeg", data, connections=connections, seconds=1.0, wrk=None)
    found = put_load(service, "/classify", "image/jpeg", data, connections=connections, seconds=seconds, wrk=None)
    if found.bad:
        sys.exit(f"{found.bad} bad answers")
    return found.requests_s


async def sizes(service: Service, data: list[bytes]) -> tuple[float, float]:
    """Mean bytes of a request and of its answer, headers included."""
    host, port = address(service)
    connection, sent, got = Connection(host, port), [], []
    for each in data:
        head = post(host, "/classify", "image/jpeg", len(each))
        answer = await connection.ask(head, each)
        sent.append(len(head) + len(each))
        got.append(len(answer.body) + sum(len(name) + len(value) + 4 for name, value in answer.headers.items()) + 17)
    await connection.ask(get(host, "/livez"))
    connection.close()
    return statistics.mean(sent), statistics.mean(got)


def parts(checkpoint: str | None, precision: str, cache_dir: Path | None, data: list[bytes], seconds: float) -> dict[str, float]:
    """Images a second of one core: the engine alone, decoding alone."""
    wish = {"checkpoint": checkpoint, "precision": precision, "cache_dir": cache_dir, "threads": 1}
    model = load_model(load_settings(wish))
    try:
        decoding = [measure.decoding(model, each, seconds / len(data)).images_s for each in data]
        return {"engine": measure.engine(model, data[0], seconds).images_s, "decoding": statistics.harmonic_mean(decoding)}
    finally:
        model.close()


async def run(args: argparse.Namespace) -> int:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two cores are needed: one for the service, one for the client")
    one, other = {cores[0]}, {cores[-1]}
    data = list(photographs(args.photographs).small)
    assumed = Assumed(args.target, args.load, args.cores, args.gbit, args.price)
    figures: dict[str, object] = {"checkpoint": args.checkpoint, "assumed": vars(assumed)}
    measured: list[tuple[str, ...]] = [("measured, a second", *args.precisions.split(","))]
    computed: list[tuple[str, ...]] = [(f"computed, for {args.target:,.0f} requests/s", *args.precisions.split(","))]
    columns: list[dict[str, float]] = []
    plans: list[dict[str, float]] = []
    for precision in args.precisions.split(","):
        changes = {"precision": precision, "cache_dir": args.cache_dir}
        with pinned(one):
            alone = parts(args.checkpoint, precision, args.cache_dir, data, args.seconds)
            column = {f"{name}, one core": value for name, value in alone.items()}
        each: dict[str, list[float]] = {"core": [], "machine": [], "rest": []}
        for _ in range(args.rounds):
            with pinned(one), serving(args.checkpoint, **changes) as (service, _), pinned(other):
                each["core"].append(rate(service, data, 4, args.seconds))
                request_bytes, answer_bytes = await sizes(service, data)
            with serving(args.checkpoint, **changes) as (service, _):
                each["machine"].append(rate(service, data, 8, args.seconds))
            with pinned(one), serving(args.checkpoint, result_cache=1000, **changes) as (service, _), pinned(other):
                each["rest"].append(rate(service, data, 4, args.seconds))
        middle = {name: statistics.median(values) for name, values in each.items()}
        column |= {
            "requests, one core": middle["core"],
            f"requests, {len(cores)} cores, which the client shares": middle["machine"],
            "requests without decoding and engine, one core": middle["rest"],
        }
        columns.append(column)
        plans.append(plan(middle["core"], request_bytes, answer_bytes, assumed))
        figures[precision] = {**column, "each": each, "request_bytes": request_bytes, "answer_bytes": answer_bytes, **plans[-1]}
    measured += [(name, *(f"{column[name]:,.1f}" for column in columns)) for name in columns[0]]
    measured.append(("bytes of a request, of its answer", *[f"{request_bytes:,.0f}, {answer_bytes:,.0f}"] * len(columns)))
    computed += [(name.replace("_", " "), *(f"{each_plan[name]:,.1f}" for each_plan in plans)) for name in plans[0]]
    words = ", ".join(f"{name} {value:g}" for name, value in vars(assumed).items())
    publish(
        "scale", "From a core to a target", f"{table(measured)}\n\nassumed: {words}\n\n{table(computed)}", figures, args.output
    )
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("photographs", nargs="*", type=Path, help="files; without, some that are made here")
    parser.add_argument("--checkpoint", default="bundled:cifar10", help="as SKNET_CHECKPOINT")
    parser.add_argument("--cache-dir", type=Path, help="as SKNET_CACHE_DIR")
    parser.add_argument("--precisions", default="auto", help="as SKNET_PRECISION, several with commas between")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--target", type=float, default=100_000, help="requests a second")
    parser.add_argument("--load", type=float, default=0.6, help="share of its capacity that is asked of a machine")
    parser.add_argument("--cores", type=int, default=64, help="of one machine")
    parser.add_argument("--gbit", type=float, default=25.0, help="of one machine's network, a second")
    parser.add_argument("--price", type=float, default=0.04, help="of a core for an hour, in any currency")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    finish(run(parser.parse_args()))


if __name__ == "__main__":
    main()
