"""Worker processes against each other: `python -m benchmarks.workers`.

Round after round one worker and several in turn, the same load. Holds that the metrics of all workers together count every
request once, whichever worker is asked. Exit status 1 where they do not.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from pathlib import Path

from app.bench.client import keep_busy, post
from benchmarks.ours import address, finish, lone_latency, metrics, serving, total, verdicts
from benchmarks.photographs import photographs
from benchmarks.report import publish, table

SCRAPES = 8  # over as many new connections, so that every worker is asked


async def measure(checkpoint: str | None, workers: int, args: argparse.Namespace) -> dict[str, float]:
    """Load on a service with so many workers, and what its metrics counted of it."""
    data = photographs([]).small
    with serving(checkpoint, workers=workers) as (service, _):
        host, port = address(service)
        requests = [(post(host, "/classify", "image/jpeg", len(body)), body) for body in data]
        warm = await keep_busy(host, port, requests, args.connections, max(1, args.seconds / 3))
        cpu = service.usage().cpu_s
        tally = await keep_busy(host, port, requests, args.connections, args.seconds)
        cpu = service.usage().cpu_s - cpu
        # Each request was waited for to its end, so that both sides count the same ones.
        sent = sum(len(t.seconds) + t.refused for t in (warm, tally))
        alone_s = await lone_latency(service, data[0], 30)
        counted = [
            total(await asyncio.to_thread(metrics, service), "sknet_requests_total", route="/classify") for _ in range(SCRAPES)
        ]
        memory = service.usage()
    return {
        "requests_s": len(tally.seconds) / args.seconds,
        "p50_ms": statistics.median(tally.seconds) * 1e3,
        "p99_ms": sorted(tally.seconds)[int(len(tally.seconds) * 0.99)] * 1e3,
        "alone_p50_ms": alone_s * 1e3,
        "core_ms": cpu / len(tally.seconds) * 1e3,
        "rss_mib": memory.rss_bytes / 2**20,
        "pss_mib": memory.pss_bytes / 2**20,
        "broken": tally.broken + warm.broken,
        "sent": sent + 30,
        "counted_least": min(counted),
        "counted_most": max(counted),
    }


async def run(args: argparse.Namespace) -> int:
    found: dict[int, list[dict[str, float]]] = {1: [], args.workers: []}
    for number in range(args.rounds):
        for count in sorted(found, reverse=bool(number % 2)):
            found[count].append(await measure(args.checkpoint, count, args))
            print(
                f"round {number + 1}: {count} workers: {found[count][-1]['requests_s']:.1f} requests/s",
                file=sys.stderr,
                flush=True,
            )
    names = ("requests_s", "p50_ms", "p99_ms", "alone_p50_ms", "core_ms", "rss_mib", "pss_mib")
    rows: list[tuple[str, ...]] = [("workers", *names)]
    rows += [(str(c), *(f"{statistics.median(each[name] for each in runs):.1f}" for name in names)) for c, runs in found.items()]
    ratio = statistics.median(b["requests_s"] / a["requests_s"] for a, b in zip(found[1], found[args.workers], strict=True))
    runs = [each for several in found.values() for each in several]
    same = all(each["sent"] == each["counted_least"] == each["counted_most"] for each in runs if not each["broken"])
    checks = {"the metrics count every request once, whichever worker is asked": same}
    text = f"{table(rows)}\n\n{args.workers} workers give {ratio:.2f} times the requests/s of one\n{verdicts(checks)}"
    publish("workers", "Worker processes", text, {"ratio": ratio, "runs": {str(c): r for c, r in found.items()}}, args.output)
    return 0 if same else 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--checkpoint", help="as SKNET_CHECKPOINT, which with the other settings counts here as well")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    finish(run(parser.parse_args()))


if __name__ == "__main__":
    main()
