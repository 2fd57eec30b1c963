"""`sknet calibrate` and `sknet export`: what they make, what they say, and what they never do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.cli import main
from model import export
from model.checkpoint import resolve
from model.manager import LoadRequest, load
from model.selection import graph_folder
from tests.model import photographs
from tests.model.small import write
from tests.repo.architecture import ROOT


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), env=env)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    return write(folder, preprocess={"size": [32, 40]})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs.write(tmp_path_factory.mktemp("photographs"), 12)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["calibrate"], 2, "Missing option '--images'"),
        (["calibrate", "--images", "no/such/folder"], 1, "no/such/folder is no folder"),
        (["calibrate", "--images", ".", "--count", "3"], 2, "3 is not in the range"),
        (["calibrate", "--images", ".", "--threads", "many"], 2, "--threads is 'many'"),
        (["export", "--checkpoint", "bundled:nope"], 1, "nope"),
        (["export", "--checkpoint", "no/such/file.safetensors"], 1, "no/such/file.safetensors"),
    ],
)
def test_errors_are_one_line(arguments: list[str], status: int, says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == status
    assert says in result.stderr.splitlines()[-1]


def test_export_makes_the_graph_ahead(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    result = run("export", "--json", "--checkpoint", str(checkpoint), "--cache-dir", str(cache), "--threads", "1")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    graph = Path(told["graph"])
    assert graph.parent == cache / "graphs"
    assert told["bytes"] == sum(path.stat().st_size for path in graph.iterdir())
    assert told["precision"] in ("float32", "bfloat16")
    assert 0 <= told["deviation_at_warm_up"] < 0.06
    assert told["images_per_second"] > 0
    assert told["digest"] == resolve(str(checkpoint)).digest

    monkeypatch.setattr(export, "export_beside", _never)
    model = load(LoadRequest(checkpoint=str(checkpoint), cache_dir=cache, engine="openvino", threads=1))
    assert model.info.deviation == pytest.approx(told["deviation_at_warm_up"])
    model.close()


def _never(*_: object) -> None:
    raise AssertionError("it was exported again")


def test_export_into_a_folder_that_cannot_be_written(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("export", "--checkpoint", str(checkpoint), "--cache-dir", str(tmp_path / "file"))
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr.splitlines()[-1]


# Python imports this at its start, in the helper processes too: a line of JSON for each process, and nothing leaves.
WATCH = """
import atexit, json, os, sys
asked = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        asked.append(event)
        raise OSError("no network here")
def report():
    names = [name for name in ("openvino", "nncf", "torch") if sys.modules.get(name)]
    telemetry = [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
    with open(os.environ["WATCHED"], "a") as file:
        file.write(json.dumps({"asked": asked, "imported": names, "telemetry": telemetry}) + "\\n")
sys.addaudithook(hook)
atexit.register(report)
"""


@dataclass
class Watched:
    """Runs Python in processes that cannot reach a network."""

    folder: Path
    processes: list[dict[str, Any]] = field(default_factory=list)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "sitecustomize.py").write_text(WATCH)
        log = self.folder / "watched.jsonl"
        log.unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}", "WATCHED": str(log)}
        done = subprocess.run(
            [sys.executable, "-W", "error", *arguments], env=environment, capture_output=True, text=True, timeout=110, check=False
        )
        self.processes = [json.loads(line) for line in log.read_text().splitlines()]
        return done


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    folder = tmp_path / "watch"
    folder.mkdir()
    return Watched(folder)


def test_the_watch_sees_what_it_looks_for(watched: Watched) -> None:
    done = watched.run("-c", "import openvino_telemetry, socket; socket.create_connection(('203.0.113.1', 80))")
    assert "no network here" in done.stderr
    (process,) = watched.processes
    assert process["asked"] == ["socket.getaddrinfo"]
    assert "openvino_telemetry" in process["telemetry"]


def test_calibrate_prints_its_table_and_sends_nothing(checkpoint: Path, tmp_path: Path, images: Path, watched: Watched) -> None:
    images = shutil.copytree(images, tmp_path / "images")
    (images / "notes.txt").write_text("no image")
    options = ["--checkpoint", str(checkpoint), "--cache-dir", str(tmp_path / "cache"), "--threads", "1"]
    done = watched.run("-m", "app.cli", "calibrate", "--images", str(images), *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [f"{images / 'notes.txt'}: skipped: the data is not an image in any known format"]
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines if line][:-1] == [
        "checkpoint", "graph", "made", "size", "runs in", "speed", "at warm-up", "first class", "logits",
    ]  # fmt: skip
    assert "over 9 images" in lines[2]
    assert lines[-1] == "Serve it with --precision int8, or SKNET_PRECISION=int8."
    assert [process["asked"] for process in watched.processes] == [[], []]  # the helper that exports, and this one
    assert [process["telemetry"] for process in watched.processes] == [[], []]
    assert {"openvino", "nncf"} <= set(watched.processes[1]["imported"])
    assert "openvino" in watched.processes[0]["imported"]


def test_export_beside_sends_nothing_leaves_torch_to_its_helper_and_is_found_without_a_cache(
    checkpoint: Path, tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    options = ["--checkpoint", str(checkpoint), "--cache-dir", str(cache), "--threads", "1"]
    done = watched.run("-m", "app.cli", "export", "--beside", *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    helper, command = watched.processes
    assert helper == {"asked": [], "imported": ["openvino", "torch"], "telemetry": []}
    assert command == {"asked": [], "imported": ["openvino"], "telemetry": []}
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert str(checkpoint.parent / "graphs") in lines["graph"]
    assert lines["size"].endswith(" MB")
    assert lines["speed"].endswith(" images/s here, the engine alone, 1 thread")
    assert not cache.exists()
    monkeypatch.setattr(export, "export_beside", _never)
    load(LoadRequest(checkpoint=str(checkpoint), cache_dir=cache, engine="openvino", threads=1)).close()


def test_calibrate_as_json(checkpoint: Path, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    export.export(resolve(str(checkpoint)), graph_folder(cache))
    monkeypatch.setattr(export, "export_beside", _never)  # a graph that is there serves
    options = ["--checkpoint", str(checkpoint), "--cache-dir", str(cache), "--threads", "1"]
    result = run("calibrate", "--json", "--images", str(images), *options)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["precision"], told["images"], told["compared_images"]) == ("int8", 9, 3)
    assert told["top1_agreement"] in (0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1)
    assert 0 < told["deviation"] < 0.3
    assert Path(told["graph"]).parent == checkpoint.parent / "graphs"
