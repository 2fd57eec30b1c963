"""Ray Serve against the plain service, and what its clients lose: `python -m benchmarks.ray_serve`.

Round after round the plain service and a local cluster in turn, the same load: as one process or replica with all threads, and
as two of one each. Then, on a cluster of two nodes under constant load: from one replica to three and back, a replica killed and
a node taken away, several times. Exit status 1 where a client that tries again lost a request, or a failure was no clear one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx

from app.bench.client import keep_busy, post
from app.client import Client, ClientError
from benchmarks.ours import finish, serving, verdicts
from benchmarks.photographs import photographs
from benchmarks.report import publish, table
from model.device import cpu_limit
from tests.e2e import ray_cluster

SIDES = ("plain, 1 process", "Ray, 1 replica", "plain, 2 workers", "Ray, 2 replicas")
DELAYS = {"upscale_delay_s": 1, "downscale_delay_s": 4, "look_back_period_s": 2, "metrics_interval_s": 0.5}
QUICK = {f"RAY_SERVE_{who}_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5" for who in ("REPLICA", "HANDLE")}
WITHIN_S = 120
LIGHT_S = 0.5  # between the requests of a connection while replicas are taken away
TICK = os.sysconf("SC_CLK_TCK")


@contextmanager
def cluster(args: argparse.Namespace, replicas: tuple[int, int], cpus: float, target: float = 4) -> Iterator[ray_cluster.Orders]:
    """A cluster with a deployment of at least and at most so many replicas, which runs."""
    given = QUICK | dict(each.split("=", 1) for each in args.ray)
    with TemporaryDirectory() as folder, ray_cluster.running(given, Path(folder) / "log.txt") as orders:
        variables = {"SKNET_DEVICE": "cpu", "SKNET_LOG_LEVEL": "warning"}  # as the plain service under measurement
        scaling = {"min_replicas": replicas[0], "max_replicas": replicas[1], "target_ongoing_requests": target, **DELAYS}
        orders("deploy", variables, scaling, {"checkpoint": args.checkpoint}, cpus)
        orders.until(lambda s: s["application"] == "RUNNING" and len(s["running"]) >= replicas[0], WITHIN_S)
        yield orders


def processor_s(pids: Sequence[int]) -> float:
    """Seconds of processors that these processes have used."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:13])) / TICK
    return total


async def measure(side: str, args: argparse.Namespace) -> dict[str, float]:
    """Load on one side."""
    data = photographs(args.images).small
    count = 2 if "2" in side else 1
    threads = max(1, cpu_limit()[0] // count)
    with ExitStack() as stack:
        if side.startswith("Ray"):
            orders = await asyncio.to_thread(stack.enter_context, cluster(args, (count, count), threads))
            url, used = orders.url, lambda: processor_s(orders.pids())
        else:
            service, _ = stack.enter_context(serving(args.checkpoint, workers=count, threads=threads))
            url, used = service.url, lambda: service.usage().cpu_s
        where = urlsplit(url)
        host, port = str(where.hostname), int(str(where.port))
        requests = [(post(host, "/classify", "image/jpeg", len(body)), body) for body in data]
        await keep_busy(host, port, requests, args.connections, max(1, args.seconds / 3))
        before = used()
        tally = await keep_busy(host, port, requests, args.connections, args.seconds)
        core_s = used() - before
        alone = await keep_busy(host, port, requests, 1, max(1, args.seconds / 3))
    taken = sorted(tally.seconds)
    return {
        "requests_s": len(taken) / args.seconds,
        "p50_ms": statistics.median(taken) * 1e3,
        "p99_ms": taken[int(len(taken) * 0.99)] * 1e3,
        "alone_p50_ms": statistics.median(alone.seconds) * 1e3,
        "core_ms": core_s / len(taken) * 1e3,
        "refused": tally.refused,
        "broken": tally.broken,
    }


@dataclass
class Seen:
    """What clients got: by status or error."""

    plain: Counter[str] = field(default_factory=Counter)
    client: Counter[str] = field(default_factory=Counter)
    unclear: int = 0  # failures that do not say that the same request may be sent again

    def figures(self) -> dict[str, object]:
        """For the table."""
        return {
            "plain": self.plain.total(),
            "plain_failed": self.plain.total() - self.plain["200"],
            "plain_by": dict(self.plain),
            "client": self.client.total(),
            "client_failed": self.client.total() - self.client["200"],
            "unclear": self.unclear,
        }


@contextmanager
def load(url: str, connections: int, data: Sequence[bytes], pause_s: float = 0) -> Iterator[Seen]:
    """Half of the connections by httpx as it is, half by `app.client.Client`, which tries again; each pauses between requests."""
    seen, over = Seen(), threading.Event()

    def plainly(body: bytes) -> None:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
            while not over.wait(pause_s):
                try:
                    answer = http.post("/classify", content=body, headers={"Content-Type": "image/jpeg"})
                except httpx.TransportError as error:
                    seen.plain[type(error).__name__] += 1
                    continue
                seen.plain[str(answer.status_code)] += 1
                seen.unclear += answer.status_code != 200 and (answer.status_code, "retry-after" in answer.headers) != (503, True)

    def patiently(body: bytes) -> None:
        with Client(url, timeout_s=30) as client:
            while not over.wait(pause_s):
                try:
                    client.classify(body)
                    seen.client["200"] += 1
                except ClientError as error:
                    seen.client[type(error).__name__] += 1

    with ThreadPoolExecutor(connections) as pool:
        asking = [pool.submit(patiently if i % 2 else plainly, data[i % len(data)]) for i in range(connections)]
        try:
            yield seen
        finally:
            over.set()
    for each in asking:
        each.result()


def lose(args: argparse.Namespace) -> dict[str, list[dict[str, object]]]:
    """Scale, kill, take a node away, each `args.times` times."""
    data = photographs(args.images).small
    found: dict[str, list[dict[str, object]]] = {"1 to 3": [], "3 to 1": [], "replica killed": [], "node taken away": []}

    def note(what: str, seconds: float, seen: Seen) -> None:
        found[what].append({"seconds": round(seconds, 2), **seen.figures()})
        print(f"{what}: {found[what][-1]}", file=sys.stderr, flush=True)

    with cluster(args, (1, 3), 1, target=1) as orders:
        for _ in range(args.times):
            with load(orders.url, args.connections, data) as seen:
                started = time.monotonic()
                orders.until(lambda s: len(s["running"]) == 3, WITHIN_S)
                seconds = time.monotonic() - started
            note("1 to 3", seconds, seen)
            for _ in range(args.times):
                with load(orders.url, args.connections, data) as seen:
                    pid = orders("state")["running"][0][0]
                    started = time.monotonic()
                    orders("kill", pid)
                    orders.until(lambda s, pid=pid: len(s["running"]) == 3 and pid not in dict(s["running"]), WITHIN_S)  # type: ignore[misc]
                    seconds = time.monotonic() - started  # before the load ends, which may wait for its last answers
                    time.sleep(1)
                note("replica killed", seconds, seen)
            with load(orders.url, args.connections, data) as seen:
                started = time.monotonic()
                orders("remove_node")
                orders.until(lambda s: len(s["running"]) == 2 and not any(second for _, second in s["running"]), WITHIN_S)
                seconds = time.monotonic() - started
                time.sleep(1)
            note("node taken away", seconds, seen)
            orders("add_node")
            orders.until(lambda s: len(s["running"]) >= 1, WITHIN_S)
            with load(orders.url, args.connections, data):
                orders.until(lambda s: len(s["running"]) == 3, WITHIN_S)
            with load(orders.url, 2, data, LIGHT_S) as seen:  # little enough for one replica
                started = time.monotonic()
                orders.until(lambda s: len(s["running"]) == 1, WITHIN_S)
                seconds = time.monotonic() - started
            note("3 to 1", seconds, seen)
    return found


def throughput(args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Every side in turn, round after round, forwards and backwards."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(args.rounds):
        for side in reversed(SIDES) if number % 2 else SIDES:
            found[side].append(asyncio.run(measure(side, args)))
            line = f"round {number + 1}: {side}: {found[side][-1]['requests_s']:.1f} requests/s"
            print(line, file=sys.stderr, flush=True)
    return found


async def run(args: argparse.Namespace) -> int:
    speed = await asyncio.to_thread(throughput, args)
    lost = await asyncio.to_thread(lose, args)
    names = ("requests_s", "p50_ms", "p99_ms", "alone_p50_ms", "core_ms", "refused", "broken")
    rows: list[tuple[str, ...]] = [("", *names)]
    rows += [(s, *(f"{statistics.median(each[n] for each in runs):.1f}" for n in names)) for s, runs in speed.items()]
    shares = {
        count: statistics.median(b["requests_s"] / a["requests_s"] for a, b in zip(speed[plain], speed[ray], strict=True))
        for count, plain, ray in ((1, *SIDES[:2]), (2, *SIDES[2:]))
    }
    columns = ("plain", "plain_failed", "client", "client_failed", "unclear")
    losses: list[tuple[str, ...]] = [("", "times", "seconds", *columns)]
    for what, several in lost.items():
        seconds = statistics.median(float(str(each["seconds"])) for each in several)
        sums = [str(sum(int(str(each[column])) for each in several)) for column in columns]
        losses.append((what, str(len(several)), f"{seconds:.1f}", *sums))
    every = [each for several in lost.values() for each in several]
    checks = {
        "a client that tries again loses nothing": not any(each["client_failed"] for each in every),
        "each failure says that the request may be sent again": not any(each["unclear"] for each in every),
    }
    words = "\n".join(
        f"Ray with {count} gives {share:.2f} times the requests/s of the plain service" for count, share in shares.items()
    )
    text = f"{table(rows)}\n\n{words}\n\n{table(losses)}\n\n{verdicts(checks)}"
    figures = {
        "shares": shares,
        "delays": DELAYS,
        "throughput": speed,
        "lost": lost,
        "connections": args.connections,
        "ray": args.ray,
    }
    publish("ray-serve", "Ray Serve", text, figures, args.output)
    return 0 if all(checks.values()) else 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_serve", description=__doc__)
    parser.add_argument("images", nargs="*", type=Path, help="photographs to send; packaged ones by default")
    parser.add_argument("--checkpoint", default="bundled:cifar10", help="as SKNET_CHECKPOINT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--times", type=int, default=3, help="how often each thing is done to the cluster; a replica is killed so often each time"
    )
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument(
        "--ray", action="append", default=[], metavar="NAME=VALUE", help="variable of Ray's, such as RAY_SERVE_..."
    )
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    finish(run(parser.parse_args()))


if __name__ == "__main__":
    main()
