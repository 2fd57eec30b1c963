"""Settings to recommend, in words, from what was measured. Nothing is measured here, and nothing is set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.bench.load import Load
from app.bench.measure import Decoding, Engine

MATTERS = 1.05  # below five percent a difference is the machine's noise


def streams(found: Sequence[Engine]) -> str:
    """Of engines measured with different streams and threads."""
    best = max(found, key=lambda engine: engine.images_s)
    first = found[0]
    if best.images_s < first.images_s * MATTERS:
        now = f"{first.streams} streams on {first.threads} threads"
        return f"leave SKNET_STREAMS and SKNET_THREADS at 0: {now} are within 5 % of the best"
    gain = (best.images_s / first.images_s - 1) * 100
    return f"SKNET_STREAMS={best.streams}: {best.images_s:.0f} images/s, {gain:.0f} % more than by default"


def batch_size(found: Sequence[Engine]) -> str:
    """Of engines measured with different batch sizes."""
    best = max(found, key=lambda engine: engine.images_s)
    first = found[0]
    if best.images_s < first.images_s * MATTERS:
        return f"leave SKNET_BATCH_SIZE at 0: batches of {first.batch_size} are within 5 % of the best"
    gain = (best.images_s / first.images_s - 1) * 100
    return f"SKNET_BATCH_SIZE={best.batch_size}: {gain:.0f} % more images/s than batches of {first.batch_size}"


def workers(found: Mapping[int, Load]) -> str:
    """Of whole services with different numbers of worker processes, under the same load."""
    best = max(found, key=lambda count: found[count].requests_s)
    gain = (found[best].requests_s / found[1].requests_s - 1) * 100
    if best == 1 or gain < (MATTERS - 1) * 100:
        most = max(found)
        return f"SKNET_WORKERS=1: {most} workers give {found[most].requests_s / found[1].requests_s:.2f} times the requests/s"
    more = found[best].rss_mib - found[1].rss_mib
    return f"SKNET_WORKERS={best}: {gain:.0f} % more requests/s than one, for {more:.0f} MiB more"


def connections(sweep: Sequence[Load]) -> str:
    """How many clients at once are enough, and what more of them cost."""
    most = max(load.requests_s for load in sweep)
    enough = next(load for load in sweep if load.requests_s >= most / MATTERS)
    line = (
        f"{enough.connections} connections reach {enough.requests_s:.0f} of {most:.0f} requests/s at p99 {enough.p99_ms:.0f} ms"
    )
    last = sweep[-1]
    return f"{line}; {last.connections} only wait longer, p99 {last.p99_ms:.0f} ms" if last is not enough else line


def balance(found: Engine, small: Decoding, large: Decoding, most: Load) -> str:
    """Where the time of a request goes."""
    total = most.core_ms or found.core_ms + small.core_ms
    rest = max(0.0, total - found.core_ms - small.core_ms)
    parts = f"engine {found.core_ms:.1f}, decoding {small.core_ms:.1f}, HTTP and the rest {rest:.1f}"
    text = f"a request costs {total:.1f} core-ms: {parts}"
    if large.core_ms > 2 * found.core_ms:
        text += f"; a 12-megapixel photograph costs {large.core_ms:.0f} to decode: let clients send them smaller"
    return text
