"""One serving process: its part of the limits. That it serves is tested with real ones, in tests/e2e."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.process import share_of
from app.settings import Settings


@pytest.mark.parametrize(("cpus", "workers", "threads"), [(8, 2, 4), (7, 2, 3), (2, 4, 1), (16, 3, 5)])
def test_processors_are_divided(cpus: int, workers: int, threads: int) -> None:
    assert share_of(Settings(workers=workers), cpus).threads == threads


def test_threads_that_were_asked_for_are_each_ones_own() -> None:
    assert share_of(Settings(workers=2, threads=6), 4).threads == 6


def test_limits_of_the_service_are_divided() -> None:
    whole = Settings(workers=4, max_queue=1001, max_buffered_bytes=800_000_000, result_cache=10, max_images=8)
    part = share_of(whole, 4)
    assert (part.max_queue, part.max_buffered_bytes, part.result_cache) == (251, 200_000_000, 3)
    kept = set(Settings.model_fields) - {"threads", "max_queue", "max_buffered_bytes", "result_cache"}
    assert {name: getattr(part, name) for name in kept} == {name: getattr(whole, name) for name in kept}


def test_no_part_is_too_small_for_one_request() -> None:
    part = share_of(Settings(workers=200), 2)
    assert part.max_queue == part.max_images == 32
    assert part.max_buffered_bytes == part.max_batch_body_bytes
    assert share_of(Settings(workers=2, max_queue=3), 2).max_queue == 3  # nor larger than the whole
    assert part.result_cache == 0


def test_the_starter_of_workers_imports_neither_the_application_nor_the_model() -> None:
    code = "import sys, app.cli, app.workers; print(sorted({'fastapi', 'uvicorn', 'numpy', 'torch', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
