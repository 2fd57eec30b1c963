"""All tests, in two processes side by side: `python -m tests`. One half waits mostly for servers, pages and the clock.

Each line is told as it comes, behind the name of its half. What follows on the command line goes to both.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
OUTER = ("tests/e2e", "tests/browser")
HALVES: Mapping[str, Sequence[str]] = {
    "inner": ("tests", *(f"--ignore={folder}" for folder in OUTER)),  # whatever is new is in this one
    "outer": OUTER,
}


def side_by_side(commands: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Run them all at once from the repository's root; the exit status of each."""
    processes = {
        name: subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        for name, command in commands.items()
    }
    readers = [threading.Thread(target=_tell, args=(name, process.stdout), daemon=True) for name, process in processes.items()]
    for reader in readers:
        reader.start()
    while any(process.poll() is None for process in processes.values()):
        try:
            time.sleep(0.1)
        except KeyboardInterrupt:  # which both got as well: they say what they had found
            continue
    for reader in readers:
        reader.join()
    return {name: process.returncode for name, process in processes.items()}


def _tell(name: str, lines: IO[str] | None) -> None:
    assert lines is not None
    with lines:
        for line in lines:
            print(f"{name}: {line.rstrip()}", flush=True)


def main(more: Sequence[str]) -> int:
    """The first exit status that is not 0, if there is one."""
    pytest = [sys.executable, "-m", "pytest"]
    commands = {name: [*pytest, "-o", f"cache_dir=.pytest_cache/{name}", *where, *more] for name, where in HALVES.items()}
    started = time.monotonic()
    found = side_by_side(commands)
    words = ", ".join(f"{name} {'passed' if status == 0 else f'ended with {status}'}" for name, status in found.items())
    print(f"{words}, in {time.monotonic() - started:.0f} s")
    return next((status for status in found.values() if status), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
