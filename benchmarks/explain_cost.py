"""What explaining costs: `python -m benchmarks.explain_cost`. Ratios out of one run, the sides in turns.

Twice: in the engine alone, the exported graph with its outputs for explanations against the same graph without them, image by
image; and through HTTP, `/classify?explain=kernel_attention` and `/explain` against plain `/classify`, as requests a second and
as the latency of a request that is alone. Pictures are drawn one by one, so only their latency is told.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import httpx
import numpy as np

from app.bench.load import form, put_load, wrk_path
from app.bench.process import Service
from benchmarks.ours import finish, serving
from benchmarks.photographs import photographs
from benchmarks.report import publish, table
from model.checkpoint import resolve
from model.engines import openvino as engine
from model.engines.runtime import core, openvino
from model.export import export_beside, find
from model.selection import Wish, graph_folders

PLAIN = "/classify"
SIDES = (PLAIN, "/classify?explain=kernel_attention", "/explain")
ACCEPT = {"figure": "/explain", "overlay": "/explain?picture=overlay"}
Medians = dict[str, float]


def in_turns(sides: Mapping[str, Callable[[], object]], rounds: int, repeat: int) -> Medians:
    """Median seconds of a call of each side; each round calls every side `repeat` times, so that a busy minute meets all."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            started = time.perf_counter()
            for _ in range(repeat):
                call()
            taken[name].append((time.perf_counter() - started) / repeat)
    return {name: statistics.median(values) for name, values in taken.items()}


def of_graph(reference: str, cache_dir: Path | None, precision: str, rounds: int) -> Medians:
    """Median seconds of an image on one thread, with the outputs for explanations and without."""
    checkpoint = resolve(reference, cache_dir=cache_dir)
    folders = tuple(graph_folders(checkpoint, Wish(cache_dir=cache_dir)))
    graph = find(checkpoint, "float32", folders) or export_beside(checkpoint, folders[-1])
    config = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    height, width = checkpoint.preprocess.size
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    sides: dict[str, Callable[[], object]] = {}
    for name in ("with", "without"):
        model = engine._read(graph, checkpoint.preprocess, "uint8")
        if name == "without":
            model = openvino().Model(model.outputs[:1], model.get_parameters())
        request = core().compile_model(model, "CPU", config).create_infer_request()
        sides[name] = partial(request.infer, {0: image}, share_inputs=True, share_outputs=True)
    in_turns(sides, 2, 3)
    return in_turns(sides, rounds, 5)


def of_requests(service: Service, data: bytes, connections: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Requests a second of each side, one figure a round."""
    content_type, body = form(data, "file")
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(rounds + 1):
        for side in SIDES:
            load = put_load(
                service, side, content_type, [body], connections=connections, seconds=seconds if number else 1.0, wrk=wrk_path()
            )
            if load.bad:
                sys.exit(f"{load.bad} bad answers of {side}")
            if number:  # the first round warms up
                found[side].append(load.requests_s)
    return found


def alone(service: Service, data: bytes, rounds: int) -> Medians:
    """Median seconds of a request of each side, and of each picture, when nothing else is asked."""
    with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:

        def ask(path: str, accept: str) -> None:
            client.post(path, files={"file": data}, headers={"Accept": accept}).raise_for_status()

        sides = {side: partial(ask, side, "*/*") for side in SIDES}
        pictures = {name: partial(ask, path, "image/png") for name, path in ACCEPT.items()}
        in_turns({**sides, **pictures}, 1, 1)
        return {**in_turns(sides, 4 * rounds, 5), **in_turns(pictures, rounds, 1)}


async def run(args: argparse.Namespace) -> int:
    figures: dict[str, object] = {"checkpoint": args.checkpoint}
    text: list[str] = []
    rows: list[tuple[str, ...]] = [("engine, one thread, an image", "without ms", "with ms", "ratio")]
    for precision in args.precisions.split(","):
        found = of_graph(args.checkpoint, args.cache_dir, precision, args.rounds * 10)
        ratio = found["with"] / found["without"]
        rows.append((precision, f"{found['without'] * 1e3:.3f}", f"{found['with'] * 1e3:.3f}", f"{ratio:.4f}"))
        figures[f"engine_{precision}"] = {**found, "ratio": ratio}
    text.append(table(rows))
    data = photographs(args.photographs).small[0]
    with serving(args.checkpoint, cache_dir=args.cache_dir) as (service, _):
        rows = [("requests a second", *SIDES, "ratio", "ratio")]
        for connections in (1, 8):
            each = of_requests(service, data, connections, args.rounds, args.seconds)
            middle = {side: statistics.median(values) for side, values in each.items()}
            ratios = [statistics.median(np.divide(each[PLAIN], each[side])) for side in SIDES[1:]]
            cells = [f"{middle[side]:.1f}" for side in SIDES]
            rows.append((f"{connections} connections", *cells, *(f"{ratio:.3f}" for ratio in ratios)))
            figures[f"requests_{connections}"] = {"each": each, "ratios": dict(zip(SIDES[1:], map(float, ratios), strict=True))}
        text.append(table(rows))
        latency = alone(service, data, args.rounds)
        rows = [("a request alone, ms", "median", "ratio")]
        rows += [(name, f"{value * 1e3:.1f}", f"{value / latency[PLAIN]:.2f}") for name, value in latency.items()]
        text.append(table(rows))
        figures["alone_s"] = latency
    publish("explain-cost", f"Cost of explaining, {args.checkpoint}", "\n\n".join(text), figures, args.output)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explain_cost", description=__doc__)
    parser.add_argument("photographs", nargs="*", type=Path, help="files or folders; without, one that is made here")
    parser.add_argument("--checkpoint", default="bundled:cifar10", help="as SKNET_CHECKPOINT")
    parser.add_argument("--cache-dir", type=Path, help="as SKNET_CACHE_DIR")
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    finish(run(parser.parse_args()))


if __name__ == "__main__":
    main()
