"""What a figure was measured on, so that another day's can be judged beside it."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from model.device import cpu_limit

ROOT = Path(__file__).resolve().parents[1]
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "avx_vnni")
PACKAGES = ("torch", "openvino", "nncf", "timm", "numpy", "pillow", "fastapi", "uvicorn")


def describe() -> dict[str, object]:
    """Processor and its features that matter here, cores, memory, system, versions, commit, and the load found at the start."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "features": [name for name in FEATURES if name in _field("/proc/cpuinfo", "flags").split()],
        "cores": cpu_limit()[0],
        "memory_gib": round(int((_field("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": commit(),
        "load_1min": _load(),
    }


def commit() -> str:
    """The commit of this tree; with `+` behind it where files differ from it."""
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        return name + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _field(path: str, name: str) -> str:
    """The value of the first line `name : value` of a file of /proc; empty where there is none."""
    try:
        for line in Path(path).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass
    return ""


def _load() -> float:
    try:
        return float(Path("/proc/loadavg").read_text().split()[0])
    except OSError:
        return 0.0
