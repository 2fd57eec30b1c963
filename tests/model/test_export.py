"""`model.export`: in this process and in a helper process, with the errors of both."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import export
from model.checkpoint import Checkpoint, resolve
from model.complexity import count_parameters
from model.engines import proof, runtime
from model.engines.runtime import openvino
from model.errors import CheckpointCorrupt, GraphError
from tests.model.small import observed, tiny, write

SPEC = {"size": [32, 40], "mean": [0.5, 0.4, 0.3]}


def test_the_helper_process_writes_what_this_one_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = resolve(str(write(tmp_path, preprocess=SPEC)))
    (tmp_path / "json.py").write_text("import os; os.abort()")
    monkeypatch.chdir(tmp_path)  # no module of the current folder is taken for a library's
    here, there = export.export(checkpoint, tmp_path / "here"), export.export_beside(checkpoint, tmp_path / "there")
    assert here.key == there.key == export.key_of(checkpoint, "float32")
    expected = proof.reference(observed(), checkpoint.preprocess)
    for known in (here.known, there.known):
        np.testing.assert_allclose(known.logits, expected.logits, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(known.attention, expected.attention, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(known.weight, tiny().fc.weight.detach().numpy())
        np.testing.assert_array_equal(known.bias, tiny().fc.bias.detach().numpy())
    assert here.parameters == there.parameters == count_parameters(tiny())
    assert here.gmacs == there.gmacs
    weights = [graph.xml.with_suffix(".bin").read_bytes() for graph in (here, there)]
    assert weights[0] == weights[1]


def test_it_is_found_where_it_lies(tmp_path: Path) -> None:
    checkpoint = resolve(str(write(tmp_path, preprocess=SPEC)))
    made = export.export(checkpoint, tmp_path / "cache")
    found = export.find(checkpoint, "float32", (tmp_path / "graphs", tmp_path / "cache"))
    assert found is not None
    assert found.path == made.path
    assert export.find(checkpoint, "float32", (tmp_path / "graphs",)) is None
    assert export.find(checkpoint, "int8", (tmp_path / "cache",)) is None


def test_other_preprocessing_is_another_graph(tmp_path: Path) -> None:
    first = export.key_of(resolve(str(write(tmp_path, preprocess=SPEC))), "float32")
    second = export.key_of(resolve(str(write(tmp_path, preprocess={**SPEC, "mean": [0.5, 0.4, 0.2]}))), "float32")
    assert first.checkpoint == second.checkpoint
    assert first.folder != second.folder


def test_errors_come_back_as_what_they_are(tmp_path: Path) -> None:
    state = {**tiny().state_dict(), "fc.bias": torch.full((3,), float("nan"))}
    broken = resolve(str(write(tmp_path, state, preprocess=SPEC)))
    with pytest.raises(CheckpointCorrupt, match="the weights hold NaN or infinity"):
        export.export_beside(broken, tmp_path / "graphs")
    assert not list(tmp_path.glob("graphs/*"))


def test_what_the_helper_answers(tmp_path: Path) -> None:
    def answer(checkpoint: Checkpoint, folder: Path) -> dict[str, str]:
        return export._answer(export._to_json(checkpoint), folder)

    whole = resolve(str(write(tmp_path, preprocess=SPEC)))
    (tmp_path / "file").write_text("no folder")
    refused = answer(whole, tmp_path / "file")
    assert refused["error"] == "GraphError"
    assert re.search(r"cannot be written to .*file: (File exists|Not a directory)", refused["text"])
    assert Path(answer(whole, tmp_path / "graphs")["graph"]).parent == tmp_path / "graphs"
    state = {key: value for key, value in tiny().state_dict().items() if key != "fc.bias"}
    unlike = answer(resolve(str(write(tmp_path, state, preprocess=SPEC))), tmp_path / "graphs")
    assert unlike["error"] == "CheckpointMismatch"
    assert "fc.bias" in unlike["text"]


def test_a_disk_that_fills_while_the_graph_is_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")  # all that the library says

    monkeypatch.setattr(openvino(), "save_model", full)
    answer = export._answer(export._to_json(resolve(str(write(tmp_path, preprocess=SPEC)))), tmp_path / "graphs")
    assert answer["text"].endswith("graphs: the disk is full or the folder cannot be written")
    assert list((tmp_path / "graphs").iterdir()) == []


def helper(monkeypatch: pytest.MonkeyPatch, program: str) -> list[subprocess.Popen[str]]:
    """Another program in the helper's place; what was started."""
    real, started = subprocess.Popen, []

    def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
        started.append(real([sys.executable, "-c", program, command[-1]], **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import os, sys; sys.stderr.write('last words'); sys.stderr.flush(); os.abort()", "ended with status -6"),
        ("import sys; print('a library says hello'); sys.exit('last words')", "ended with status 1"),
        ("import sys; print(5); sys.exit('last words')", "ended with status 1"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\n'); sys.stderr.buffer.write(b'\\xff last words')", "ended with status 0"),
    ],
)
def test_a_helper_that_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, program: str, says: str
) -> None:
    checkpoint = resolve(str(write(tmp_path, preprocess=SPEC)))
    helper(monkeypatch, program)
    with pytest.raises(GraphError, match=f"the helper process of the export {says}"):
        export.export_beside(checkpoint, tmp_path)
    assert "last words" in caplog.text


def test_a_helper_that_never_reads_or_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = resolve(str(write(tmp_path, preprocess=SPEC)))
    started = helper(monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(export, "LIMIT_S", 0.2)
    monkeypatch.setattr(export, "_to_json", lambda _: "x" * 10_000_000)  # more than any pipe holds
    with pytest.raises(GraphError, match=r"did not end within 0\.2 s"):
        export.export_beside(checkpoint, tmp_path)
    assert [process.returncode for process in started] == [-9]


def test_a_helper_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = resolve(str(write(tmp_path, preprocess=SPEC)))

    def full(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", full)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    with pytest.raises(GraphError, match="the helper process of the export cannot be started: Cannot allocate memory"):
        export.export_beside(checkpoint, tmp_path)
    assert not before or len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_helper_ends_when_who_started_it_is_killed(tmp_path: Path) -> None:
    """The one in between is killed while its helper exports; the helper holds this test's pipe open as long as it lives."""
    forever = "export._answer = lambda *_: (print('at work', file=sys.stderr, flush=True), time.sleep(600))"
    helper = f"import sys, time; from model import export; {forever}; export.main()"
    program = f"""
import subprocess, sys
from pathlib import Path
from model import export
real = subprocess.Popen
def start(command, **options):
    return real([sys.executable, "-c", {helper!r}, command[-1]], **{{**options, "stderr": None}})
subprocess.Popen = start
export._helped("{{}}", Path("."))
"""
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as between:
        assert between.stderr is not None
        assert between.stderr.readline() == "at work\n"
        between.kill()
        assert between.stderr.read() == ""  # comes back when the last who holds it has ended


def test_without_torch_the_helper_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = resolve(str(write(tmp_path, preprocess=SPEC)))
    helper(monkeypatch, "import sys; sys.modules['torch'] = None; from model.export import main; sys.exit(main())")
    with pytest.raises(GraphError, match="exporting needs torch, which is not installed here"):
        export.export_beside(checkpoint, tmp_path)


def test_without_openvino_there_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "openvino_version", lambda: None)
    with pytest.raises(GraphError, match="OpenVINO is not installed here"):
        export.key_of(resolve(str(write(tmp_path, preprocess=SPEC))), "float32")
    assert runtime.openvino_version() is not None
