"""Hot swaps under load: `python -m benchmarks.soak.swaps --swaps 100`.

Two checkpoints of different labels take each other's place while clients post without a pause. Holds that no request fails, that
every answer's labels belong to the digest in the same answer, and that memory, descriptors and threads are flat: what they are
after the last swap is compared with what they were after the tenth. Exit status 1 where one fails.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

from app.bench.client import Connection, post
from app.bench.process import Service
from benchmarks.ours import address, finish, metrics, serving, total, verdicts
from benchmarks.report import publish, table
from model.reference import BUNDLED_FOLDER

MEMORY_MIB = 24  # more than that between the tenth swap and the last is a leak: a model is some 30 MiB
OTHERS = 4  # descriptors or threads more, as pools come and go
SETTLE_S = 1.0  # for the replaced model to be freed


@dataclass
class Seen:
    """What the clients got."""

    statuses: Counter[str] = field(default_factory=Counter)
    labels: dict[str, set[str]] = field(default_factory=dict)  # by digest
    slowest_s: float = 0.0
    stop: bool = False


@dataclass(frozen=True)
class Sample:
    """The service after so many swaps."""

    swaps: int
    rss_mib: float
    pss_mib: float
    descriptors: int
    threads: int


def checkpoints(folder: Path) -> list[str]:
    """Two of the bundled checkpoint's weights, with other labels and so other digests; their names inside the folder."""
    source = BUNDLED_FOLDER / "cifar10.safetensors"
    card = json.loads(source.with_suffix(".json").read_text())
    names = []
    for word in ("one", "two"):
        file = folder / f"{word}.safetensors"
        save_file(load_file(source), file, {"format": "pt", "of": word})
        labels = [f"{word} {label}" for label in card["labels"]]
        golden = {**card["golden"], "label": f"{word} {card['golden']['label']}"}
        changed = {"labels": labels, "golden": golden, "sha256": None, "variant": word}
        file.with_suffix(".json").write_text(json.dumps({**card, **changed}))
        names.append(file.name)
    return names


def picture() -> bytes:
    """A JPEG of 200 x 150 pixels."""
    y, x = np.mgrid[0:150, 0:200]
    pixels = np.stack([x, y, (x * y) % 255], axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


async def client(service: Service, data: bytes, seen: Seen) -> None:
    """Post until told to stop."""
    host, port = address(service)
    connection, head = Connection(host, port), post(host, "/classify", "image/jpeg", len(data))
    while not seen.stop:
        try:
            answer = await connection.ask(head, data)
        except (OSError, EOFError) as error:
            seen.statuses[type(error).__name__] += 1
            continue
        seen.statuses[answer.code] += 1
        seen.slowest_s = max(seen.slowest_s, answer.seconds)
        if answer.ok:
            body = json.loads(answer.body)
            words = {p["label"].split()[0] for p in body["predictions"]}
            seen.labels.setdefault(body["model"]["digest"], set()).update(words | {body["model"]["variant"]})
    connection.close()


def sample(service: Service, swaps: int) -> Sample:
    """Of the whole tree; descriptors and threads of the serving process."""
    usage, proc = service.usage(), Path(f"/proc/{service.process.pid}")
    descriptors, threads = len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))
    return Sample(swaps, usage.rss_bytes / 2**20, usage.pss_bytes / 2**20, descriptors, threads)


async def swap(service: Service, names: list[str], count: int, at: set[int]) -> tuple[list[Sample], list[float]]:
    """So many swaps in turn; samples after some of them, and the seconds that each took."""
    samples, seconds = [], []
    async with httpx.AsyncClient(base_url=service.url, timeout=120, trust_env=False) as asking:
        for done in range(1, count + 1):
            started = time.perf_counter()
            answer = await asking.post("/models/default/load", json={"checkpoint": names[done % 2]})
            if not answer.is_success:
                raise SystemExit(f"swap {done} was answered with {answer.status_code}: {answer.text[:300]}")
            seconds.append(time.perf_counter() - started)
            if done in at:
                await asyncio.sleep(SETTLE_S)
                samples.append(sample(service, done))
    return samples, seconds


async def main() -> int:
    """The whole of it; 0 where everything held."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.swaps", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--output", type=Path, help="folder for the figures as .md and .json")
    args = parser.parse_args()
    first = min(10, max(1, args.swaps // 10))
    with TemporaryDirectory() as folder:
        names = checkpoints(Path(folder))
        changes = {"model_dir": folder, "cache_dir": Path(folder) / "cache", "open_admin": True, "drain_s": 1}
        with serving(str(Path(folder) / names[0]), **changes) as (service, _):
            await swap(service, names, 2, set())  # both graphs are made by now
            seen, data = Seen(), picture()
            clients = [asyncio.create_task(client(service, data, seen)) for _ in range(args.clients)]
            samples, seconds = await swap(service, names, args.swaps, {first, args.swaps // 2, args.swaps})
            seen.stop = True
            await asyncio.gather(*clients)
            loads = total(await asyncio.to_thread(metrics, service), "sknet_model_loads_total", outcome="loaded")
        shutil.rmtree(Path(folder) / "cache", ignore_errors=True)
    before, after = samples[0], samples[-1]
    checks = {
        f"all of {seen.statuses.total()} requests were answered with 200": set(seen.statuses) == {"200"},
        "labels always belonged to the digest": len(seen.labels) == 2 and all(len(words) == 1 for words in seen.labels.values()),
        f"{loads:.0f} models were loaded": loads == args.swaps + 3,
        f"memory grew by {after.pss_mib - before.pss_mib:.1f} MiB, at most {MEMORY_MIB}": (
            after.pss_mib - before.pss_mib <= MEMORY_MIB
        ),
        "descriptors and threads are flat": (
            after.descriptors - before.descriptors <= OTHERS and after.threads - before.threads <= OTHERS
        ),
    }
    rows = [("swaps", "RSS MiB", "PSS MiB", "descriptors", "threads")]
    rows += [(str(s.swaps), f"{s.rss_mib:.1f}", f"{s.pss_mib:.1f}", str(s.descriptors), str(s.threads)) for s in samples]
    median = sorted(seconds)[len(seconds) // 2]
    text = f"{table(rows)}\n\na swap: median {median:.2f} s; slowest request {seen.slowest_s:.2f} s\n{verdicts(checks)}"
    figures = {
        "samples": [vars(s) for s in samples],
        "statuses": dict(seen.statuses),
        "swap_median_s": round(median, 3),
        "slowest_request_s": round(seen.slowest_s, 3),
        "holds": all(checks.values()),
    }
    publish("swaps", "Hot swaps under load", text, figures, args.output)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    finish(main())
