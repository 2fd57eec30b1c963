"""How much a core and this machine serve, what stops them next, and the arithmetic to a target: `python -m benchmarks.scale`.

Measured, in turns in one run: the service on one core with the client on another; the service on every core, which the client
shares; and, one core each, what a request is made of: the engine alone, decoding alone, and everything else (images asked again
and again of a service that remembers answers, so that only HTTP, SHA-256 and JSON are left; by the processor time it took, since
one client may not keep such a service busy). Computed from there: cores, machines, balancers, traffic and cost. The two are never
mixed: the text says which is which, and what was assumed. With `--device cuda` it is the GPU that is measured, with all cores.
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
from app.bench.client import Connection, post
from app.bench.load import Load, put_load, wrk_path
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
    balancer_gbit: float  # that one load balancer passes on
    price: float  # of a core for an hour


def plan(rate: float, request_bytes: float, answer_bytes: float, assumed: Assumed) -> dict[str, float]:
    """From requests a second of one core to a target: pure arithmetic, and as if a machine's cores did not disturb each other."""
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
        "balancers": math.ceil(gbit_in / (assumed.balancer_gbit * assumed.load)),
        "core_hours_a_million": 1e6 / (rate * assumed.load) / 3600,
        "cost_a_million": 1e6 / (rate * assumed.load) / 3600 * assumed.price,
    }


def load(service: Service, data: list[bytes], connections: int, seconds: float) -> Load:
    """Each photograph in turn, after a second that is not counted."""
    wrk = wrk_path()
    put_load(service, "/classify", "image/jpeg", data, connections=connections, seconds=1.0, wrk=wrk)
    found = put_load(service, "/classify", "image/jpeg", data, connections=connections, seconds=seconds, wrk=wrk)
    if found.bad:
        sys.exit(f"{found.bad} bad answers")
    return found


async def sizes(service: Service, data: list[bytes]) -> tuple[float, float]:
    """Mean bytes of a request and of its answer, headers included."""
    host, port = address(service)
    connection, sent, got = Connection(host, port), [], []
    for each in data:
        head = post(host, "/classify", "image/jpeg", len(each))
        answer = await connection.ask(head, each)
        sent.append(len(head) + len(each))
        got.append(len(answer.body) + sum(len(name) + len(value) + 4 for name, value in answer.headers.items()) + 17)
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


async def of_core(args: argparse.Namespace, precision: str, data: list[bytes], cores: list[int]) -> dict[str, float]:
    """What one core does, and what all of them do, which the client shares."""
    one, other = {cores[0]}, {cores[-1]}
    changes = {"precision": precision, "cache_dir": args.cache_dir}
    with pinned(one):
        alone = parts(args.checkpoint, precision, args.cache_dir, data, args.seconds)
    each: dict[str, list[float]] = {"core": [], "busy": [], "machine": [], "rest": []}
    sent = got = 0.0
    for _ in range(args.rounds):
        with pinned(one), serving(args.checkpoint, **changes) as (service, _), pinned(other):
            found = load(service, data, 4, args.seconds)
            each["core"].append(found.requests_s)
            each["busy"].append(found.requests_s * found.core_ms / 1e3)
            sent, got = await sizes(service, data)
        with serving(args.checkpoint, **changes) as (service, _):
            each["machine"].append(load(service, data, 8, args.seconds).requests_s)
        with pinned(one), serving(args.checkpoint, result_cache=1000, **changes) as (service, _), pinned(other):
            each["rest"].append(1e3 / load(service, data, 16, args.seconds).core_ms)
    middle = {name: statistics.median(values) for name, values in each.items()}
    return {
        "engine alone, one core": alone["engine"],
        "decoding alone, one core": alone["decoding"],
        "all else alone, one core": middle["rest"],
        "requests, one core": middle["core"],
        "of which the service was busy": middle["busy"],
        f"requests, {len(cores)} cores, the client on them": middle["machine"],
        "bytes of a request": sent,
        "bytes of an answer": got,
    }


async def of_gpu(args: argparse.Namespace, precision: str, data: list[bytes]) -> dict[str, float]:
    """What a GPU does with all cores before it, which the client shares."""
    changes = {"precision": precision, "cache_dir": args.cache_dir, "device": args.device}
    model = load_model(load_settings({"checkpoint": args.checkpoint, **changes}))
    engine = measure.engine(model, data[0], args.seconds)
    decoding = measure.decoding(model, data[0], args.seconds)
    model.close()
    with serving(args.checkpoint, **changes) as (service, _):
        rates = [load(service, data, 256, args.seconds).requests_s for _ in range(args.rounds)]
        sent, got = await sizes(service, data)
    return {
        "engine alone": engine.images_s,
        "decoding alone, one core": decoding.images_s,
        "requests, one GPU": statistics.median(rates),
        "bytes of a request": sent,
        "bytes of an answer": got,
    }


async def run(args: argparse.Namespace) -> int:
    cores = sorted(os.sched_getaffinity(0))
    gpu = args.device.startswith("cuda")
    if len(cores) < 2 and not gpu:
        sys.exit("two cores are needed: one for the service, one for the client")
    data, precisions = list(photographs(args.photographs).small), args.precisions.split(",")
    assumed = Assumed(args.target, args.load, args.cores, args.gbit, args.balancer_gbit, args.price)
    unit = "requests, one GPU" if gpu else "requests, one core"
    columns = [await (of_gpu(args, each, data) if gpu else of_core(args, each, data, cores)) for each in precisions]
    plans = [plan(each[unit], each["bytes of a request"], each["bytes of an answer"], assumed) for each in columns]
    measured: list[tuple[str, ...]] = [("measured, a second", *precisions)]
    measured += [
        (name, *(f"{column[name]:,.{0 if 'bytes' in name else 1 if 'busy' not in name else 2}f}" for column in columns))
        for name in columns[0]
    ]
    computed: list[tuple[str, ...]] = [(f"computed, for {args.target:,.0f} requests/s", *precisions)]
    computed += [(name.replace("_", " "), *(f"{each[name]:,.2f}".removesuffix(".00") for each in plans)) for name in plans[0]]
    words = ", ".join(f"{name} {value:g}" for name, value in vars(assumed).items())
    figures: dict[str, object] = {"checkpoint": Path(args.checkpoint).name, "assumed": vars(assumed)}
    figures |= {each: {**column, **of_plan} for each, column, of_plan in zip(precisions, columns, plans, strict=True)}
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
    parser.add_argument("--balancer-gbit", type=float, default=40.0, help="that one load balancer passes on, a second")
    parser.add_argument("--device", default="auto", help="cuda measures a GPU; cores and price are then those of GPUs")
    parser.add_argument("--price", type=float, default=0.04, help="of a core for an hour, in any currency")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    finish(run(parser.parse_args()))


if __name__ == "__main__":
    main()
