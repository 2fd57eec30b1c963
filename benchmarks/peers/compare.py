"""Starting each server in turn, putting the same load on it, checking that all of them answer the same, and the figures of it."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from app.bench.load import Load, LoadError, put_load
from app.bench.process import Service, free_port, running
from app.bench.report import table
from benchmarks.machine import ROOT
from benchmarks.peers.sides import Side, command_of, environment_of
from benchmarks.photographs import Photographs
from model.device import cpu_limit

START_S = 240  # Ray's first start on a busy machine, imports of torch included
ANOTHER_NETWORK = 0.5  # deviation of log-scores, in standard deviations over the classes; int8 stays below 0.3


@dataclass(frozen=True)
class Setup:
    """What a comparison is made with."""

    state: Path
    photographs: Photographs
    wrk: str
    connections: int
    seconds: float

    @property
    def folder(self) -> Path:
        return self.state / "checkpoint"


@dataclass
class Run:
    """What was measured of one side, a value a round; `failed` says why it is missing."""

    side: Side
    many: list[Load] = field(default_factory=list)
    alone: list[Load] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    same_top1: int = 0
    deviation: float = 0.0
    failed: str = ""

    def median(self, what: str, name: str) -> float:
        return float(statistics.median(getattr(load, name) for load in getattr(self, what)))


def write_checkpoint(setup: Setup) -> None:
    """Make the weights that all serve, unless they are there."""
    _reference(setup, [])


def calibrate(setup: Setup, images: Path | None) -> str:
    """Make the int8 artifact beside the weights; return why it could not be made, or nothing."""
    if images is None:
        images = setup.state / "calibration"
        images.mkdir(exist_ok=True)
        for i, data in enumerate(setup.photographs.small):
            (images / f"{i:03}.jpg").write_bytes(data)
    command = [sys.executable, "-m", "app.cli", "calibrate", "--checkpoint", str(setup.folder), "--images", str(images)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_own_environment(setup), check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def rounds(setup: Setup, sides: Sequence[Side], count: int, photographs: Sequence[bytes]) -> list[Run]:
    """Every side in turn, `count` times, back and forth. A side that fails is told of, and left out from then on."""
    runs = [Run(side) for side in sides]
    reference = _reference(setup, photographs) if sides else []
    for number in range(count):
        for run in runs if number % 2 == 0 else reversed(runs):
            if run.failed:
                continue
            try:
                with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as scratch:
                    _measure(setup, run, photographs, reference, scratch)
            except Exception as error:  # whatever one server does, the others are still measured
                run.failed = f"{type(error).__name__}: {error}"
                print(f"{run.side.name}: {run.failed}", file=sys.stderr, flush=True)
                continue
            many, alone = run.many[-1], run.alone[-1]
            line = f"round {number + 1}: {run.side.name}: {many.requests_s:.1f} requests/s, alone {alone.p50_ms:.1f} ms"
            print(line, file=sys.stderr, flush=True)
    return runs


def _measure(setup: Setup, run: Run, photographs: Sequence[bytes], reference: list[list[float]], scratch: str) -> None:
    side, port = run.side, free_port()
    # Ray's sockets lie in the scratch folder, and a socket's path may have 107 characters: hence not under `state`.
    env = environment_of(side, port, setup.folder, setup.state, cpu_limit()[0]) | {"PEER_TEMP": scratch}
    command = command_of(side, port, setup.folder, setup.state)
    log = setup.state / f"{side.name.replace(' ', '-')}.log"
    requests = [side.request(data) for data in photographs]
    content_type, bodies = requests[0][0], [body for _, body in requests]
    with running(command, f"http://127.0.0.1:{port}", log, env=env, cwd=ROOT if side.kind == "ours" else setup.state) as service:
        start_s = service.wait_until_ready(side.ready_path, START_S)
        run.same_top1, run.deviation = _check(service, side, requests, reference)
        load: dict[str, Any] = {"path": side.path, "content_type": content_type, "bodies": bodies, "wrk": setup.wrk}
        with suppress(LoadError):  # a warm-up that no answer came within is one none the less
            put_load(service, connections=setup.connections, seconds=max(2, setup.seconds / 3), **load)
        many = _patiently(service, setup.connections, setup.seconds, load)
        alone = _patiently(service, 1, setup.seconds / 2, load)
    run.start_s.append(start_s)
    run.many.append(many)
    run.alone.append(alone)


def _patiently(service: Service, connections: int, seconds: float, load: Mapping[str, Any]) -> Load:
    """A server that answers nothing for seconds, since it runs what waits as one large batch, gets four times as many."""
    try:
        return put_load(service, connections=connections, seconds=seconds, **load)
    except LoadError:
        return put_load(service, connections=connections, seconds=4 * seconds, **load)


def _check(
    service: Service, side: Side, requests: Sequence[tuple[str, bytes]], reference: list[list[float]]
) -> tuple[int, float]:
    """(photographs with the reference's top-1, largest deviation of the log-scores in standard deviations over the classes).

    Raises:
        RuntimeError: an answer that is no ranking, or one of another network.
    """
    same, worst = 0, 0.0
    with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
        for (content_type, body), row in zip(requests, reference, strict=True):
            answer = _first_good(client, side.path, content_type, body)
            found = answer.json()
            ranking = (found[0] if isinstance(found, list) else found)["predictions"]
            same += ranking[0]["index"] == max(range(len(row)), key=row.__getitem__)
            spread = statistics.pstdev(row)
            off = [abs(math.log(p["score"]) - row[p["index"]]) / spread for p in ranking if p["score"] > 1e-9]
            worst = max(worst, *off)
    if worst > ANOTHER_NETWORK:
        raise RuntimeError(f"the answers deviate by {worst:.2f} from timm's: another network, or another preprocessing")
    return same, worst


def _first_good(client: httpx.Client, path: str, content_type: str, body: bytes) -> httpx.Response:
    """Some servers call themselves ready before their first worker is."""
    for _ in range(100):
        answer = client.post(path, content=body, headers={"Content-Type": content_type})
        if answer.is_success:
            return answer
        time.sleep(1)
    raise RuntimeError(f"answered {answer.status_code}: {answer.text[:200]}")


def _reference(setup: Setup, photographs: Sequence[bytes]) -> list[list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i:03}.jpg" for i in range(len(photographs))]
        for path, data in zip(files, photographs, strict=True):
            path.write_bytes(data)
        command = [sys.executable, "-m", "benchmarks.peers.checkpoint", str(setup.folder), *map(str, files)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=_own_environment(setup), check=True)
    rows: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _own_environment(setup: Setup) -> dict[str, str]:
    return environment_of(Side("ours", "ours"), 0, setup.folder, setup.state, 1)


def summary(setup: Setup, runs: Sequence[Run], large: Sequence[Run]) -> tuple[str, dict[str, object]]:
    """(tables for people, figures for JSON)."""
    sizes = [sum(map(len, part)) / max(1, len(part)) / 1e3 for part in (setup.photographs.small, setup.photographs.large)]
    parts, figures = [], {}
    for what, some, size in (("small", runs, sizes[0]), ("large", large, sizes[1])):
        if some:
            count = max((len(run.many) for run in some), default=0)
            head = f"{what} photographs, {size:.0f} kB on average, {setup.connections} connections, {count} rounds, medians"
            parts.append(f"{head}\n{_table(some)}")
            figures[what] = {run.side.name: _figures(run) for run in some}
    return "\n\n".join(parts), {**figures, "connections": setup.connections, "photographs": list(setup.photographs.names)}


HEAD = (
    "",
    "requests/s",
    "ours / it",
    "int8 / it",
    "p50 ms",
    "p99 ms",
    "alone p50",
    "core-ms",
    "MiB",
    "start s",
    "top-1",
    "deviation",
)


def _table(runs: Sequence[Run]) -> str:
    by_name = {run.side.name: run for run in runs}
    rows: list[tuple[str, ...]] = [HEAD]
    for run in runs:
        if not run.many:
            rows.append((run.side.name, "failed", *("",) * (len(HEAD) - 2)))
            continue
        ratios = (_ratio(by_name.get("ours"), run), _ratio(by_name.get("ours int8"), run))
        many = [f"{run.median('many', name):.1f}" for name in ("p50_ms", "p99_ms")]
        alone = f"{run.median('alone', 'p50_ms'):.1f}"
        use = [f"{run.median('many', 'core_ms'):.1f}", f"{run.median('many', 'pss_mib'):.0f}"]
        rest = [f"{statistics.median(run.start_s):.1f}", str(run.same_top1), f"{run.deviation:.3f}"]
        shown = ("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
        rows.append((run.side.name, f"{run.median('many', 'requests_s'):.1f}", *shown, *many, alone, *use, *rest))
    return table(rows)


def _ratio(ours: Run | None, other: Run) -> float | None:
    """Requests/s over the other's, each round apart, the median of them."""
    if ours is None or not ours.many or not other.many:
        return None
    return statistics.median(a.requests_s / b.requests_s for a, b in zip(ours.many, other.many, strict=False))


def _figures(run: Run) -> dict[str, object]:
    return {
        "workers": run.side.workers,
        "many": [load.as_dict() for load in run.many],
        "alone": [load.as_dict() for load in run.alone],
        "start_s": [round(value, 2) for value in run.start_s],
        "same_top1": run.same_top1,
        "deviation": round(run.deviation, 4),
        **({"failed": run.failed} if run.failed else {}),
    }
