"""Far more clients than the service can serve, some with large bodies: `python -m benchmarks.overload`.

Holds that there was an overload, that nothing is answered with 5xx and no connection is broken, that accepted requests keep their
deadline, that refusals come at once, that memory stays flat, and that the service is its old self within a second. Exit status 1
where one of these fails.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from app.bench.client import Connection, post
from app.bench.process import Service
from benchmarks.ours import address, finish, lone_latency, seconds_until_idle, serving, verdicts
from benchmarks.photographs import LARGE, nearest, photographs
from benchmarks.report import publish, table

LARGE_BYTES = 15_000_000
REFUSED_AT_ONCE_S = 0.05
FLAT = 1.25  # memory at the end over that after the first third: arenas settle, leaks do not


@dataclass
class Seen:
    """Every answer's code and seconds, by the kind of body, and the memory from time to time."""

    answers: list[tuple[str, str, float]] = field(default_factory=list)  # kind, code, seconds
    broken: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds since the start, MiB

    def seconds(self, first_digit: str, kind: str = "") -> list[float]:
        return sorted(s for k, code, s in self.answers if code.startswith(first_digit) and kind in ("", k))


def large_body() -> bytes:
    """A 12-megapixel JPEG of some 15 MB: grain is what makes photographs that large."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.normal(128, 32, (LARGE[1], LARGE[0], 3)).clip(0, 255).astype(np.uint8))

    def at(quality: int) -> bytes:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return out.getvalue()

    return nearest(at, LARGE_BYTES, 60, 100)


async def overload(service: Service, bodies: dict[str, bytes], args: argparse.Namespace) -> Seen:
    """Keep every connection asking; one that was refused waits `--pause` seconds, far less than Retry-After asks."""
    host, port = address(service)
    seen, started = Seen(), time.perf_counter()
    end = started + args.seconds

    async def ask(index: int) -> None:
        kind = "large" if index % args.large_every == 0 else "small"
        head, connection = post(host, "/classify", "image/jpeg", len(bodies[kind])), Connection(host, port)
        while time.perf_counter() < end:
            try:
                answer = await connection.ask(head, bodies[kind])
            except (OSError, EOFError, TimeoutError):
                seen.broken += 1
                await asyncio.sleep(args.pause)
                continue
            seen.answers.append((kind, answer.code, answer.seconds))
            if not answer.ok:
                await asyncio.sleep(args.pause)
        connection.close()

    async def watch() -> None:
        while time.perf_counter() < end:
            usage = await asyncio.to_thread(service.usage)
            seen.memory.append((time.perf_counter() - started, usage.rss_bytes / 2**20))
            await asyncio.sleep(0.5)

    await asyncio.gather(watch(), *(ask(i) for i in range(args.connections)))
    return seen


def figures_of(seen: Seen, idle_s: float, back_s: float) -> dict[str, float]:
    accepted, refused = seen.seconds("2"), seen.seconds("4")
    third = [mib for at, mib in seen.memory if at <= seen.memory[-1][0] / 3]
    return {
        "accepted": len(accepted),
        "accepted_p50_s": statistics.median(accepted) if accepted else float("inf"),
        "accepted_p99_s": accepted[int(len(accepted) * 0.99)] if accepted else float("inf"),
        "refused": len(refused),
        "refused_p50_s": statistics.median(refused) if refused else 0.0,
        "refused_small_p50_s": statistics.median(seen.seconds("4", "small") or [0.0]),
        "server_errors": len(seen.seconds("5")),
        "broken": seen.broken,
        "mib_after_a_third": max(third),
        "mib_most": max(mib for _, mib in seen.memory),
        "mib_last": seen.memory[-1][1],
        "idle_before_s": idle_s,
        "back_to_idle_s": back_s,
    }


def checks_of(found: dict[str, float], deadline_s: float) -> dict[str, bool]:
    """What is held, in words, and whether it is so. Without refusals there was no overload, and the rest would say nothing."""
    third, last, back_s = found["mib_after_a_third"], found["mib_last"], found["back_to_idle_s"]
    return {
        "no 5xx": found["server_errors"] == 0,
        "no broken connection": found["broken"] == 0,
        "some were accepted": found["accepted"] > 0,
        "some were refused": found["refused"] > 0,
        f"accepted p99 {found['accepted_p99_s']:.2f} s <= {deadline_s:g} s": found["accepted_p99_s"] <= deadline_s,
        f"refused in {found['refused_p50_s'] * 1e3:.1f} ms <= 50 at the median": found["refused_p50_s"] <= REFUSED_AT_ONCE_S,
        f"memory flat: {third:.0f} MiB after a third, {last:.0f} at the end": last <= FLAT * third,
        f"back to {found['idle_before_s'] * 1e3:.1f} ms within {back_s:.2f} s <= 1 s": back_s <= 1,
    }


async def run(args: argparse.Namespace) -> int:
    bodies = {"small": photographs([]).small[0], "large": large_body()}
    with serving(args.checkpoint) as (service, settings):
        await lone_latency(service, bodies["small"], 20)
        idle_s = await lone_latency(service, bodies["small"], 30)
        seen = await overload(service, bodies, args)
        back_s = await seconds_until_idle(service, bodies["small"], idle_s)
    found = figures_of(seen, idle_s, back_s)
    codes = Counter(f"{kind} {code}" for kind, code, _ in seen.answers)
    checks = checks_of(found, settings.deadline_s)
    rows = [("answers", "number"), *((name, str(count)) for name, count in sorted(codes.items())), ("broken", str(seen.broken))]
    memory = "MiB over time: " + " ".join(f"{mib:.0f}" for _, mib in seen.memory[:: max(1, len(seen.memory) // 15)])
    size = f"{len(bodies['large']) / 1e6:.1f} MB"
    head = f"{args.connections} connections for {args.seconds:g} s, every {args.large_every}th with {size}"
    text = "\n\n".join([head, table(rows), memory, verdicts(checks)])
    result = {**{name: round(value, 4) for name, value in found.items()}, "codes": dict(codes), "held": all(checks.values())}
    publish("overload", "Overload", text, result, args.output)
    return 0 if all(checks.values()) else 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--checkpoint", help="as SKNET_CHECKPOINT, which with the other settings counts here as well")
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--large-every", type=int, default=16, help="one connection of so many sends 15 MB")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds a refused client waits")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    finish(run(parser.parse_args()))


if __name__ == "__main__":
    main()
