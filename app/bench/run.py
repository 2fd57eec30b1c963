"""`sknet bench`: every measurement in turn, as text for people and figures for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from app.bench import advice, measure
from app.bench.load import Load, wrk_path
from app.bench.report import table
from app.classifier import Model
from app.settings import Settings
from model.device import cpu_limit

SWEEP = (1, 2, 4, 8, 16, 32, 64)
Say = Callable[[str], None]
LoadModel = Callable[[Settings], Model]


@dataclass
class Result:
    """Text, a paragraph an entry, and figures under stable names."""

    text: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)


def bench(
    settings: Settings, load_model: LoadModel, images: Sequence[bytes], seconds: float, sweep: Sequence[int], say: Say
) -> Result:
    """Measure a model with these settings on this machine: some two minutes with three seconds a measurement.

    Args:
        images: encoded photographs to send; one is made where there are none.
        seconds: of each measurement. sweep: numbers of connections, rising.
        say: told what is measured next.

    Raises:
        ModelError: the model cannot be loaded. ServiceError: the service does not start. LoadError: it does not answer.
    """
    small, large = list(images) or [measure.photograph(512, 320)], measure.photograph(4000, 3000, 85)
    result = Result()
    found, decoded = _steps(settings, load_model, small[0], large, seconds, result, say)
    wrk = wrk_path()
    say("end to end" + ("" if wrk else ", asked by this program's own client: wrk is not installed"))
    loads = measure.end_to_end(settings, small, sweep, seconds, wrk)
    workers = {settings.workers: loads[-1]} | _workers(settings, small, sweep[-1], seconds, wrk, say)
    say("starts")
    starts = measure.starts(settings)
    most = max(loads, key=lambda load: load.requests_s)
    result.text += [_sweep(loads), _starts(starts)]
    words = [
        advice.connections(loads),
        advice.balance(found[0], *decoded, most),
        advice.streams(found[:1] + [each for each in found[1:] if each.batch_size == found[0].batch_size]),
        advice.batch_size(found[:1] + [each for each in found[1:] if each.batch_size != found[0].batch_size]),
    ]
    if 1 in workers and len(workers) > 1:
        words.append(advice.workers(workers))
    result.text.append("\n".join(f"- {line}" for line in words))
    result.figures |= {
        "generator": "wrk" if wrk else "own",
        "sweep": [load.as_dict() for load in loads],
        "workers": {str(count): load.as_dict() for count, load in workers.items()},
        "starts": {name: _rounded(asdict(start)) for name, start in starts.items()},
        "end_to_end_over_engine": round(most.requests_s / found[0].images_s, 3),
        "advice": words,
    }
    return result


def _steps(
    settings: Settings, load_model: LoadModel, small: bytes, large: bytes, seconds: float, result: Result, say: Say
) -> tuple[list[measure.Engine], tuple[measure.Decoding, measure.Decoding]]:
    """Engine and decoding, in this process; the engine as it is first, then with other streams and batches."""
    say("engine and decoding")
    model = load_model(settings)
    try:
        info = model.info
        found = [measure.engine(model, small, seconds)]
        for size in _other_sizes(found[0].batch_size):
            found.append(measure.engine(model, small, seconds, batch_size=size))
        decoded = (measure.decoding(model, small, seconds), measure.decoding(model, large, seconds))
    finally:
        model.close()
    for streams in _other_streams(found[0].streams, found[0].threads) if not settings.streams else ():
        say(f"engine with {streams} streams")
        other = load_model(settings.model_copy(update={"streams": streams}))
        try:
            if int(other.info.streams.value) == streams:
                found.append(measure.engine(other, small, seconds, batch_size=found[0].batch_size))
        finally:
            other.close()
    head = f"{info.variant}, {info.engine.value} {info.dtype.value} on {info.device.value}: {info.engine.reason}"
    result.text += [head, _engines(found), _decoding(*decoded)]
    result.figures |= {
        "variant": info.variant, "checkpoint": info.checkpoint, "engine": info.engine.value, "dtype": info.dtype.value,
        "device": info.device.value, "gmacs": info.gmacs, "deviation": info.deviation,
        "engines": [_rounded(asdict(each)) for each in found],
        "decoding": {name: _rounded(asdict(each)) for name, each in zip(("small", "large"), decoded, strict=True)},
    }  # fmt: skip
    return found, decoded


def _other_sizes(batch_size: int) -> list[int]:
    """Never above the engine's own: one that likes single images would run a batch one by one, and seem to be fast at it."""
    return [size for size in (1, 8) if size < batch_size]


def _other_streams(streams: int, threads: int) -> list[int]:
    return sorted({1, max(1, threads // 2), threads} - {streams})


def _workers(
    settings: Settings, data: Sequence[bytes], connections: int, seconds: float, wrk: str | None, say: Say
) -> dict[int, Load]:
    """The whole service with other numbers of workers, up to one for every two processors, and two on two."""
    cores = cpu_limit()[0]
    counts = {2**power for power in range(9) if 2**power <= max(2, cores // 2)} if cores > 1 else set()
    found = {}
    for count in sorted(counts - {settings.workers}):
        say(f"end to end with {count} workers")
        found[count] = measure.end_to_end(settings, data, [connections], seconds, wrk, workers=count)[0]
    return found


def _engines(found: Sequence[measure.Engine]) -> str:
    rows = [("engine alone", "streams", "threads", "batch", "images/s", "one alone ms", "core-ms")]
    for each in found:
        counts = (str(each.streams), str(each.threads), str(each.batch_size))
        rows.append(("", *counts, f"{each.images_s:.1f}", f"{each.alone_ms:.1f}", f"{each.core_ms:.1f}"))
    return table(rows)


def _decoding(small: measure.Decoding, large: measure.Decoding) -> str:
    rows = [("decoding alone, one thread", "kB", "images/s", "core-ms")]
    for name, each in (("photograph", small), ("12 megapixels", large)):
        rows.append((name, f"{each.data_bytes / 1e3:.0f}", f"{each.images_s:.1f}", f"{each.core_ms:.1f}"))
    return table(rows)


def _sweep(loads: Sequence[Load]) -> str:
    rows = [("connections", "requests/s", "p50 ms", "p90 ms", "p99 ms", "core-ms", "MiB", "bad")]
    for load in loads:
        times = (f"{load.p50_ms:.1f}", f"{load.p90_ms:.1f}", f"{load.p99_ms:.1f}")
        rows.append(
            (str(load.connections), f"{load.requests_s:.1f}", *times, f"{load.core_ms:.1f}", f"{load.rss_mib:.0f}", str(load.bad))
        )
    return table(rows)


def _starts(starts: Mapping[str, measure.Start]) -> str:
    words = {"first": "first start, empty cache", "again": "start with the cached graph"}
    rows = [("start to ready", "seconds", "MiB")]
    return table([*rows, *((words[name], f"{each.ready_s:.2f}", f"{each.rss_mib:.0f}") for name, each in starts.items())])


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}
