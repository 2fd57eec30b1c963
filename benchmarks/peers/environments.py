"""An environment for each peer, from its own pinned requirements: made once, made again when the pins change."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PEERS = ("litserve", "bentoml", "ray")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def uv() -> str:
    """The program uv: beside this interpreter, or on PATH.

    Raises:
        SystemExit: there is none.
    """
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise SystemExit("uv is needed to make the peers' environments: it is one of this repository's development requirements")
    return found


def environment(peer: str, state: Path) -> Path:
    """The folder with the programs of a peer's environment.

    Raises:
        subprocess.CalledProcessError: it cannot be made; uv has said why.
    """
    pins = HERE / f"requirements-{peer}.txt"
    stamp = hashlib.sha256(pins.read_bytes() + PYTHON.encode()).hexdigest()
    folder = state / f"env-{peer}"
    mark = folder / "pins.sha256"
    if not mark.exists() or mark.read_text() != stamp:
        print(f"making the environment of {peer} in {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
        # Hard links out of uv's cache: torch alone is some gigabytes, and every peer has the same.
        into = ["--python", str(folder / "bin" / "python"), "--link-mode", "hardlink"]
        subprocess.run([uv(), "pip", "install", "--quiet", "--require-hashes", *into, "-r", str(pins)], check=True)
        mark.write_text(stamp)
    return folder / "bin"


def lock() -> None:
    """Pin every peer anew."""
    options = ["--quiet", "--upgrade", "--universal", "--python-version", "3.11", "--generate-hashes"]
    plain = ["--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]
    for peer in PEERS:
        into = HERE / f"requirements-{peer}.txt"
        subprocess.run([uv(), "pip", "compile", *options, *plain, str(into.with_suffix(".in")), "-o", str(into)], check=True)
