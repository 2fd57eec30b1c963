"""What a model costs, step by step: engine alone, decoding alone, the whole service, its start. Prints nothing."""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from app.bench.load import Load, form, put_load
from app.bench.process import Service, free_port, running
from app.classifier import Model
from app.settings import Settings, environment_without, flag

READY = "/readyz"
CLOSED = ("api_keys", "api_keys_file", "rate_limit")  # settings that would keep the measurement out
START_S = 180  # a first start that exports a graph on a busy machine


def photograph(width: int, height: int, quality: int = 92) -> bytes:
    """A JPEG with detail at every scale, as photographs have."""
    rng = np.random.default_rng(0)
    pixels = np.zeros((height, width, 3), np.float32)
    for cells in (4, 16, 64, 256):
        coarse = Image.fromarray(rng.integers(0, 255, (cells, cells, 3), dtype=np.uint8))
        pixels += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 4
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=quality)
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine without anything around it, called by as many threads at once as it likes."""

    images_s: float
    alone_ms: float
    streams: int
    threads: int
    batch_size: int
    core_ms: float


@dataclass(frozen=True, slots=True)
class Decoding:
    """Bytes to the engine's input, in one thread."""

    images_s: float
    core_ms: float
    data_bytes: int


def engine(model: Model, data: bytes, seconds: float, *, batch_size: int = 0) -> Engine:
    """Measure the engine; `batch_size` images a call, by default as many as it likes."""
    streams, item = int(model.info.streams.value), model.prepare(data)
    batch = [item] * (batch_size or max(1, model.info.batch_size))
    model.run(batch)
    alone = _latency(lambda: model.run([item]), max(1.0, seconds / 3))
    calls, wall, cpu = _in_threads(lambda: model.run(batch), streams, seconds)
    images = calls * len(batch)
    return Engine(images / wall, alone * 1e3, streams, int(model.info.threads.value), len(batch), cpu / images * 1e3)


def decoding(model: Model, data: bytes, seconds: float) -> Decoding:
    """Measure decoding and preparing, one image after the other."""
    calls, wall, cpu = _in_threads(lambda: model.prepare(data), 1, seconds)
    return Decoding(calls / wall, cpu / calls * 1e3, len(data))


def _latency(work: Callable[[], object], seconds: float) -> float:
    """Median seconds of a call."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not taken:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _in_threads(work: Callable[[], object], threads: int, seconds: float) -> tuple[int, float, float]:
    """(calls, wall seconds, processor seconds of this process) of `work` called over and over by some threads at once."""
    work()
    counts = [0] * threads
    started, cpu = time.perf_counter(), time.process_time()
    end = started + seconds

    def repeat(index: int) -> None:
        while time.perf_counter() < end:
            work()
            counts[index] += 1

    running_ones = [threading.Thread(target=repeat, args=(i,)) for i in range(threads)]
    for thread in running_ones:
        thread.start()
    for thread in running_ones:
        thread.join()
    return sum(counts), time.perf_counter() - started, time.process_time() - cpu


def service(settings: Settings, folder: Path, **changes: object) -> AbstractContextManager[Service]:
    """`sknet serve` with these settings and `changes`, on a free port of loopback; logs go to `folder`.

    Open to the measurement: without keys and rate.
    """
    port = free_port()
    values = {**{name: getattr(settings, name) for name in settings.model_fields_set - set(CLOSED)}, **changes}
    values |= {"host": "127.0.0.1", "port": port, "log_level": "warning", "log_format": "console"}
    flags = [text for name, value in values.items() if value is not None for text in (flag(name), str(value))]
    command = [sys.executable, "-P", "-m", "app.cli", "serve", *flags]  # -P: no `app` that happens to lie in the current folder
    return running(command, f"http://127.0.0.1:{port}", folder / f"{port}.log", env=environment_without(*CLOSED))


@dataclass(frozen=True, slots=True)
class Start:
    """From the start of the process to readiness."""

    ready_s: float
    rss_mib: float


def start(settings: Settings, cache: Path) -> Start:
    """Start the service once with this cache folder, which may be empty, and end it."""
    with service(settings, cache.parent, cache_dir=cache) as served:
        seconds = served.wait_until_ready(READY, START_S)
        return Start(seconds, served.usage().rss_bytes / 2**20)


def end_to_end(
    settings: Settings, data: Sequence[bytes], connections: Sequence[int], seconds: float, wrk: str | None, **changes: object
) -> list[Load]:
    """One service, the load of each number of connections in turn; photographs as the part of a form, as curl -F sends them."""
    content_type, bodies = form(data[0], "file")[0], [form(each, "file")[1] for each in data]
    found = []
    with tempfile.TemporaryDirectory() as folder, service(settings, Path(folder), **changes) as served:
        served.wait_until_ready(READY, START_S)
        for count in (connections[-1], *connections):  # the first warms up and is not counted
            found.append(put_load(served, "/classify", content_type, bodies, connections=count, seconds=seconds, wrk=wrk))
    return found[1:]


def starts(settings: Settings) -> Mapping[str, Start]:
    """The first start ever, with an empty cache, and one with what it left there. A downloaded checkpoint has no first here."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        cache.mkdir()
        local = settings.checkpoint.startswith("bundled:") or Path(settings.checkpoint).exists()
        if not local:
            return {"again": start(settings, settings.cache_dir or Path.home() / ".cache" / "sknet")}
        return {"first": start(settings, cache), "again": start(settings, cache)}
