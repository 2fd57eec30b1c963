"""Restarts in turn under load: `python -m benchmarks.soak.rolling [--restarts 10] [--proxy haproxy|nginx|none]`.

Two instances behind a proxy, clients that never pause, and one instance after the other ended by SIGTERM, waited for, started and
waited for again. Holds that no request of any client failed and that each instance ended with status 0. Exit status 1 otherwise.

With `--proxy none` the clients themselves go from one instance to the other when an answer says that its connection closes, and
try nothing twice: what is lost then is the service's own.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from app.bench import measure
from app.bench.client import Connection
from app.bench.process import Service, free_port, running
from benchmarks.ours import finish, verdicts
from benchmarks.report import publish, table
from benchmarks.soak.clients import learn
from benchmarks.soak.forms import Form, good, labels_of
from benchmarks.soak.proxies import PROXIES, ProxyError, proxy

END_S = 60.0
NOTICE_S = 1.0  # after an instance is ready: for the proxy to see it


class Instance:
    """One service on a port of its own that lives several times."""

    def __init__(self, folder: Path, grace_s: float) -> None:
        self.port = free_port()
        self._folder = folder
        self._grace_s = grace_s
        self._lives = 0
        self._life = ExitStack()
        self._service: Service | None = None

    def start(self) -> float:
        """Start it; the seconds until it was ready."""
        flags = {"--port": self.port, "--grace-s": self._grace_s, "--log-level": "warning", "--log-format": "console"}
        command = [sys.executable, "-P", "-m", "app.cli", "serve", *(str(word) for pair in flags.items() for word in pair)]
        log = self._folder / f"{self.port}-{self._lives}.log"
        self._service = self._life.enter_context(running(command, f"http://127.0.0.1:{self.port}", log))
        self._lives += 1
        return self._service.wait_until_ready(measure.READY, measure.START_S)

    def end(self) -> tuple[int, float]:
        """SIGTERM; its exit status, and the seconds that it took."""
        assert self._service is not None
        started = time.monotonic()
        self._service.process.terminate()
        status = self._service.process.wait(END_S)
        self._life.close()
        return status, time.monotonic() - started

    def close(self) -> None:
        """End it, whatever it does."""
        self._life.close()


@dataclass
class Seen:
    """What all clients saw."""

    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


async def ask(ports: Sequence[int], forms: Sequence[Form], seen: Seen, stop: asyncio.Event, first: int, pause_s: float) -> None:
    """One client: again and again until told to stop; nothing is tried twice."""
    rng, turn = random.Random(first), first
    connection = Connection("127.0.0.1", ports[turn % len(ports)])
    while not stop.is_set():
        form = rng.choice(forms)
        closes = True
        try:
            answer = await connection.ask(form.head, form.body)
        except (OSError, EOFError, TimeoutError) as error:
            seen.failures[type(error).__name__] += 1
            await asyncio.sleep(0.05)
        else:
            closes = answer.headers.get("connection") == "close"
            seen.slowest_s = max(seen.slowest_s, answer.seconds)
            if answer.code != form.status:
                ours = answer.headers.get("content-type", "").startswith("application/")
                seen.failures[f"{answer.code} of the {'service' if ours else 'proxy'}"] += 1
            elif labels_of(answer.body) != form.labels:
                seen.failures["another class"] += 1
            else:
                seen.answered += 1
        if closes:
            connection.close()
            turn += 1
            connection = Connection("127.0.0.1", ports[turn % len(ports)])
        if pause_s:
            await asyncio.sleep(rng.expovariate(1 / pause_s))
    connection.close()


@dataclass(frozen=True)
class Restart:
    """One restart, with what failed since the one before."""

    instance: int
    status: int
    ended_s: float
    ready_s: float
    answered: int
    failed: int


async def roll(instances: Sequence[Instance], ports: Sequence[int], args: argparse.Namespace) -> tuple[list[Restart], Seen]:
    """The restarts, under load from before the first to after the last."""
    seen, stop, restarts = Seen(), asyncio.Event(), []
    forms = await learn("127.0.0.1", instances[0].port, good())
    async with asyncio.TaskGroup() as group:
        for number in range(args.clients):
            group.create_task(ask(ports, forms, seen, stop, number, args.pause))
        try:
            await asyncio.sleep(NOTICE_S)
            for number in range(args.restarts):
                answered, failed = seen.answered, seen.failures.total()
                instance = instances[number % len(instances)]
                status, ended_s = await asyncio.to_thread(instance.end)
                ready_s = await asyncio.to_thread(instance.start)
                await asyncio.sleep(NOTICE_S)
                since = seen.answered - answered, seen.failures.total() - failed
                restarts.append(Restart(number % len(instances), status, ended_s, ready_s, *since))
                print(f"restart {number + 1}: {restarts[-1]}", file=sys.stderr, flush=True)
        finally:
            stop.set()
    return restarts, seen


def report(restarts: Sequence[Restart], seen: Seen, args: argparse.Namespace) -> int:
    """Print and publish; the exit status."""
    failed = seen.failures.total()
    rows: list[tuple[str, ...]] = [("restart", "instance", "ended in s", "status", "ready in s", "answered", "failed")]
    for number, each in enumerate(restarts):
        values = (each.instance, f"{each.ended_s:.1f}", each.status, f"{each.ready_s:.1f}", each.answered, each.failed)
        rows.append((str(number + 1), *map(str, values)))
    checks = {
        f"{failed} of {seen.answered + failed} requests failed": failed == 0 and seen.answered > 0,
        f"{len(restarts)} restarts of {args.restarts}": len(restarts) == args.restarts,
        "every instance ended with status 0": all(each.status == 0 for each in restarts),
    }
    how = f"proxy {args.proxy}, {args.clients} clients with {args.pause:g} s of pause, {args.grace:g} s of grace"
    slowest = f"slowest answer: {seen.slowest_s:.2f} s"
    failures = ", ".join(f"{why}: {count}" for why, count in seen.failures.items())
    text = "\n\n".join([how, table(rows), "\n".join(filter(None, (slowest, failures))), verdicts(checks)])
    figures: dict[str, object] = {
        "proxy": args.proxy,
        "grace_s": args.grace,
        "clients": args.clients,
        "pause_s": args.pause,
        "restarts": len(restarts),
        "answered": seen.answered,
        "failures": dict(seen.failures),
        "slowest_s": round(seen.slowest_s, 3),
        "held": all(checks.values()),
    }
    publish(f"rolling-{args.proxy}", "Restarts in turn", text, figures, args.output)
    return 0 if all(checks.values()) else 1


async def run(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="sknet-rolling-")))
        instances = [Instance(folder, args.grace) for _ in range(2)]
        for instance in instances:
            stack.callback(instance.close)
            await asyncio.to_thread(instance.start)
        backends = ports = [instance.port for instance in instances]
        if args.proxy != "none":
            ports = [stack.enter_context(proxy(args.proxy, folder, backends))]
        restarts, seen = await roll(instances, ports, args)
    return report(restarts, seen, args)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.rolling", description=__doc__)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--proxy", choices=[*PROXIES, "none"], default="haproxy")
    parser.add_argument("--grace", type=float, default=3.0, help="SKNET_GRACE_S of both instances")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.0, help="mean seconds between an answer and the client's next request")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    try:
        finish(run(parser.parse_args()))
    except ProxyError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
