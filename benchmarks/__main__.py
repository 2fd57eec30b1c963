"""What each step of a request costs, and how many requests a second come out at the other end.

Prints a table for people and one JSON line last. Figures of different runs do not compare on a shared machine: the ratios
of one run do.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import threading
import time
from collections.abc import Callable

import httpx
import numpy as np
from PIL import Image

from app.settings import Settings
from model.manager import LoadRequest, load
from tests.e2e.server import serve


def photograph(width: int, height: int, quality: int = 85) -> bytes:
    """A JPEG with detail at every scale, as photographs have."""
    rng = np.random.default_rng(0)
    pixels = np.zeros((height, width, 3), np.float32)
    for cells in (4, 16, 64, 256):
        coarse = rng.integers(0, 255, (cells, cells, 3), dtype=np.uint8)
        pixels += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32) / 4
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def rate(work: Callable[[], object], seconds: float) -> float:
    """Calls a second, after one call that is not counted."""
    work()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - started)


def over_http(url: str, data: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Requests a second and latencies in milliseconds with this many clients asking all the time."""
    times: list[float] = []
    bad: list[int] = []
    end = time.perf_counter() + seconds

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            while time.perf_counter() < end:
                started = time.perf_counter()
                answer = client.post("/classify", content=data, headers={"Content-Type": "image/jpeg"})
                (times if answer.status_code == 200 else bad).append(time.perf_counter() - started)

    threads = [threading.Thread(target=ask) for _ in range(connections)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(times, n=100)
    wall = time.perf_counter() - started
    return {"requests_s": len(times) / wall, "p50_ms": cuts[49] * 1e3, "p99_ms": cuts[98] * 1e3, "errors": len(bad)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench ARGS='...'", description=__doc__)
    parser.add_argument("--checkpoint", default=Settings().checkpoint)
    parser.add_argument("--seconds", type=float, default=5, help="seconds a measurement")
    parser.add_argument("--connections", type=int, default=16)
    args = parser.parse_args()
    model = load(LoadRequest(checkpoint=args.checkpoint))
    small, large = photograph(500, 300), photograph(4000, 3000)
    item = model.prepare(small)
    figures: dict[str, float] = {
        "prepare 500x300 JPEG, images/s": rate(lambda: model.prepare(small), args.seconds),
        "prepare 12-megapixel JPEG, images/s": rate(lambda: model.prepare(large), args.seconds),
        "engine, batch 1, images/s": rate(lambda: model.run([item]), args.seconds),
        "engine, batch 8, images/s": 8 * rate(lambda: model.run([item] * 8), args.seconds),
    }
    with serve("--checkpoint", args.checkpoint) as server:
        alone = over_http(server.url, small, 1, args.seconds)
        many = over_http(server.url, small, args.connections, args.seconds)
    figures |= {f"HTTP, 1 connection, {k}": v for k, v in alone.items()}
    figures |= {f"HTTP, {args.connections} connections, {k}": v for k, v in many.items()}
    figures["end to end over engine (batch 8)"] = many["requests_s"] / figures["engine, batch 8, images/s"]
    print(f"{model.info.variant} on {model.info.device.value}, {model.info.engine.value}, {model.info.threads.value} threads")
    print("\n".join(f"{name:44} {value:10.2f}" for name, value in figures.items()))
    print(json.dumps({"checkpoint": args.checkpoint, **{k: round(v, 3) for k, v in figures.items()}}))


if __name__ == "__main__":
    main()
