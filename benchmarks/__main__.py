"""`make bench`: what `sknet bench` measures, and how near the engine comes to the machine's own limit.

Prints tables for people and one JSON line last. Figures of different runs do not compare on a shared machine: the ratios
of one run do.
"""

from __future__ import annotations

import argparse
import functools
import signal
import sys
import time
from pathlib import Path

import torch

from app.bench.report import table
from app.bench.run import SWEEP, Result, bench
from app.main import load_model
from app.settings import load_settings
from benchmarks.photographs import photographs
from benchmarks.report import publish
from model.device import cpu_limit

SIDE = 2048


def wall(dtype: torch.dtype, seconds: float) -> float:
    """GFLOP/s of a square matrix product on every core: the most that any engine could reach with this arithmetic."""
    torch.set_num_threads(cpu_limit()[0])
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    torch.mm(a, b)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * SIDE**3 / best / 1e9


def walls(result: Result, seconds: float) -> None:
    """Add both walls, and the engine's share of the one of its arithmetic."""
    gmacs = float(str(result.figures["gmacs"]))
    engines = result.figures["engines"]
    assert isinstance(engines, list)
    rows = [("matrix product", "GFLOP/s", "images/s at most", "engine's share")]
    shares = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        gflops = wall(dtype, seconds)
        most = gflops / (2 * gmacs)
        shares[name] = {"gflops": round(gflops, 1), "images_s": round(most, 1), "share": round(engines[0]["images_s"] / most, 3)}
        rows.append((name, f"{gflops:.0f}", f"{most:.1f}", f"{shares[name]['share']:.2f}"))
    result.text.append(table(rows))
    result.figures["walls"] = shares


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench ARGS='...'", description=__doc__)
    parser.add_argument("images", nargs="*", type=Path, help="photographs to send; packaged ones by default")
    parser.add_argument("--checkpoint", help="as SKNET_CHECKPOINT, which with the other settings counts here as well")
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--connections", default=",".join(map(str, SWEEP)), help="of the sweep")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    args = parser.parse_args()
    sweep = [int(count) for count in args.connections.split(",")]
    say = functools.partial(print, file=sys.stderr, flush=True)
    settings = load_settings({"checkpoint": args.checkpoint})
    result = bench(settings, load_model, photographs(args.images).small, args.seconds, sweep, say)
    say("matrix products")
    walls(result, args.seconds)
    publish("bench", "This machine", "\n\n".join(result.text), result.figures, args.output)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ended from outside, it still ends its servers
    main()
