"""One network behind every server, one after the other, on the same photographs: `python -m benchmarks.peers [PHOTOGRAPH...]`.

Makes the peers' environments, starts each server on a free port of loopback, waits, warms it up, asks on many connections and on
one, and ends it; round after round, so that a slow minute of the machine meets every side. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from app.bench.load import wrk_path
from benchmarks.machine import ROOT
from benchmarks.peers import compare, environments, sides
from benchmarks.photographs import photographs
from benchmarks.report import publish


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("photographs", nargs="*", type=Path, help="files to send as they are; packaged photographs by default")
    parser.add_argument(
        "--state", type=Path, default=Path.home() / ".cache" / "sknet-benchmarks", help="environments and weights"
    )
    parser.add_argument("--sides", default=",".join(sides.DEFAULT), help=f"of: {', '.join(s.name for s in sides.SIDES)}")
    parser.add_argument(
        "--large-sides", default=",".join(sides.LARGE), help="compared on 12-megapixel photographs; empty for none"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of a measurement on many connections; half of it on one")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--calibration-images", type=Path, help="folder for `sknet calibrate`; the photographs sent by default")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    parser.add_argument("--lock", action="store_true", help="pin the peers' requirements anew, and end")
    return parser.parse_args()


def chosen(names: str) -> list[sides.Side]:
    known = {side.name: side for side in sides.SIDES}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"no side is named {unknown[0]!r}; there are: {', '.join(known)}")
    return [known[name] for name in wanted]


def main() -> None:
    args = arguments()
    if args.lock:
        environments.lock()
        return
    wrk = wrk_path()
    if wrk is None:
        raise SystemExit("wrk is needed: apt install wrk (Debian), brew install wrk (macOS)")
    args.state.mkdir(parents=True, exist_ok=True)
    setup = compare.Setup(args.state, photographs(args.photographs), wrk, args.connections, args.seconds)
    compare.write_checkpoint(setup)
    todo, large = chosen(args.sides), chosen(args.large_sides)
    for kind in {side.kind for side in (*todo, *large)} - {"ours"}:
        environments.environment(kind, args.state)
    if any(side.variables.get("SKNET_PRECISION") == "int8" for side in todo):
        failed = compare.calibrate(setup, args.calibration_images)
        if failed:
            print(f"without int8: {failed}", file=sys.stderr)
            todo = [side for side in todo if side.variables.get("SKNET_PRECISION") != "int8"]
    runs = compare.rounds(setup, todo, args.rounds, setup.photographs.small)
    runs_large = compare.rounds(setup, large, max(1, args.rounds - 1), setup.photographs.large)
    text, figures = compare.summary(setup, runs, runs_large)
    publish("peers", "skresnet18 behind other servers and behind this one", text, figures, args.output)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ended from outside, it still ends its servers
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{Path(str(error.cmd[0])).name} failed in {ROOT.name}") from None
