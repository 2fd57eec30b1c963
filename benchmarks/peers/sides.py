"""The sides of the comparison: how each server is started, where it takes a photograph and how its answer is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.bench.load import form
from benchmarks.machine import ROOT
from benchmarks.peers import environments

# No word to anybody about these runs; loopback for all of Ray's daemons, which on Linux it grants only under this name.
QUIET = {
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "CI": "true",  # OpenVINO's converter asks nobody for consent
    "CUDA_VISIBLE_DEVICES": "",  # the comparison is one of processors
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True)
class Side:
    """One server. `workers` 0 stands for one a core; `variables` are ours only."""

    name: str
    kind: str  # "ours" or a peer
    engine: str = "eager"
    workers: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return {"ours": "/classify", "litserve": "/predict", "bentoml": "/classify", "ray": "/"}[self.kind]

    @property
    def ready_path(self) -> str:
        return {"ours": "/readyz", "litserve": "/health", "bentoml": "/readyz", "ray": "/-/routes"}[self.kind]

    def request(self, data: bytes) -> tuple[str, bytes]:
        """(content type, body), each as its documentation sends a photograph."""
        part = {"ours": "file", "litserve": "content", "bentoml": "images"}.get(self.kind)
        return form(data, part) if part else ("image/jpeg", data)


# As documented: one worker (LitServe, BentoML), one replica a core (Ray Serve's num_replicas="auto"). With OpenVINO inside every
# peer gets a worker a core, which is the better for all of them.
SIDES = (
    Side("ours", "ours"),
    Side("ours int8", "ours", variables={"SKNET_PRECISION": "int8"}),
    Side("ours eager", "ours", variables={"SKNET_ENGINE": "eager"}),
    Side("litserve", "litserve"),
    Side("bentoml", "bentoml"),
    Side("ray", "ray", workers=0),
    Side("litserve openvino", "litserve", "openvino", workers=0),
    Side("bentoml openvino", "bentoml", "openvino", workers=0),
    Side("ray openvino", "ray", "openvino", workers=0),
    Side("ours exact", "ours", variables={"SKNET_PREPROCESS": "exact"}),
    Side("litserve per core", "litserve", workers=0),
    Side("bentoml per core", "bentoml", workers=0),
)
DEFAULT = tuple(side.name for side in SIDES[:9])
LARGE = ("ours", "ours exact", "litserve", "litserve openvino")


def environment_of(side: Side, port: int, folder: Path, state: Path, cores: int) -> dict[str, str]:
    """Variables of a server's process: nothing of ours but the search path, then what the side needs."""
    home = state / "home"
    (home / "intel").mkdir(parents=True, exist_ok=True)
    (home / "intel" / "openvino_telemetry").write_text("0")  # its own place for a refusal
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    common = {**kept, **QUIET, "HOME": str(home)}
    if side.kind == "ours":
        return {**common, "PYTHONPATH": str(ROOT), **side.variables}
    workers = side.workers or cores
    return {
        **common,
        "PEER_FOLDER": str(folder),
        "PEER_ENGINE": side.engine,
        "PEER_PRECISION": "bf16",
        "PEER_WORKERS": str(workers),
        "PEER_THREADS": str(max(1, cores // workers)),
        "PEER_PORT": str(port),
        "BENTOML_HOME": str(state / "bentoml"),
    }


def command_of(side: Side, port: int, folder: Path, state: Path) -> list[str]:
    """The command that serves, in the foreground. Everybody logs what it logs by default, into a file."""
    if side.kind == "ours":
        cache = str(state / "cache")
        place = ["--port", str(port), "--checkpoint", str(folder), "--cache-dir", cache]
        return [sys.executable, "-m", "app.cli", "serve", *place]
    programs = environments.environment(side.kind, state)
    if side.kind == "bentoml":
        place = ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(environments.HERE)]
        return [str(programs / "python"), "-m", "bentoml", "serve", "bentoml_service:Classifier", *place]
    return [str(programs / "python"), str(environments.HERE / f"{side.kind}_service.py")]
