"""Fuzz one target: `python -m tests.fuzz TARGET [CORPUS_FOLDER] [libFuzzer's flags]`, such as `-max_total_time=1260`.

Its seeds are written into a folder that is thrown away; what the run finds interesting goes to CORPUS_FOLDER where one is given.
An input that fails is left in the current folder as `crash-...`, and is one literal in a regression test from then on.

Instrumented is Python: ours, Pillow's, and the multipart parser. Native libraries report no coverage, so that inside of them
inputs are found by chance; a crash there is seen all the same.
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

TARGETS = ("image", "form", "base64", "data_uri", "json", "oip")
# The last one guides where ours is a single expression: the second readings that it is compared with have branches.
INSTRUMENTED = ("app", "model", "PIL", "pillow_heif", "python_multipart", "tests.fuzz")
SLOW_S = 5.0  # of processor time: a busy machine is no finding
FLAGS = ("-timeout=60", "-rss_limit_mb=3000", "-max_len=20000", "-print_final_stats=1")


class Slow(Exception):
    """One input that takes too long."""


def timed(check: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The check, which also fails on an input that is slow."""

    def run(data: bytes) -> None:
        started = time.process_time()
        check(data)
        taken = time.process_time() - started
        if taken > SLOW_S:
            raise Slow(f"{taken:.1f} s of processor time")

    return run


def main(arguments: Sequence[str]) -> None:
    import atheris

    name, *rest = arguments
    if name not in TARGETS:
        sys.exit(f"there is no target {name!r}; there is {', '.join(TARGETS)}")
    warnings.simplefilter("ignore")
    logging.disable()  # the multipart parser logs each refusal
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = importlib.import_module(f"tests.fuzz.fuzz_{name}")
        for seed in target.seeds():  # Pillow's plugins are imported when they are first needed, which is now
            target.check(seed)
    with tempfile.TemporaryDirectory() as folder:
        for i, seed in enumerate(target.seeds()):
            (Path(folder) / f"seed-{i:04d}").write_bytes(seed)
        folders = [word for word in rest if not word.startswith("-")]
        own = Path(folder) / "found"
        own.mkdir()
        flags = [word for word in rest if word.startswith("-")]
        atheris.Setup([sys.argv[0], *FLAGS, *flags, *(folders or [str(own)]), folder], timed(target.check))
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
