"""`model.export`: in this process and in a helper process, with the errors of both."""

from __future__ import annotations

import re
import shutil
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
from model.errors import CheckpointCorrupt, GraphError
from tests.model.small import tiny, write

SPEC = {"size": [32, 40], "mean": [0.5, 0.4, 0.3]}


def test_the_helper_process_writes_what_this_one_would(tmp_path: Path) -> None:
    checkpoint = resolve(str(write(tmp_path, preprocess=SPEC)))
    here, there = export.export(checkpoint, tmp_path / "here"), export.export_beside(checkpoint, tmp_path / "there")
    assert here.key == there.key == export.key_of(checkpoint, "float32")
    np.testing.assert_allclose(here.reference, there.reference, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(here.reference, proof.reference(tiny(), checkpoint.preprocess), rtol=1e-5, atol=1e-6)
    assert here.parameters == there.parameters == count_parameters(tiny())
    assert here.gmacs == there.gmacs
    weights = [graph.xml.with_suffix(".bin").read_bytes() for graph in (here, there)]
    assert weights[0] == weights[1]


def test_a_graph_beside_the_checkpoint_comes_first(tmp_path: Path) -> None:
    checkpoint = resolve(str(write(tmp_path, preprocess=SPEC)))
    cached = export.export(checkpoint, tmp_path / "cache")
    found = export.find(checkpoint, "float32", tmp_path / "cache")
    assert found is not None
    assert found.path == cached.path
    shutil.copytree(tmp_path / "cache", tmp_path / export.BESIDE)
    found = export.find(checkpoint, "float32", tmp_path / "cache")
    assert found is not None
    assert found.path.parent == tmp_path / "graphs"
    assert export.find(checkpoint, "int8", tmp_path / "cache") is None


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


def test_a_helper_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = resolve(str(write(tmp_path, preprocess=SPEC)))
    real = subprocess.run

    def killed(_command: list[str], **options: Any) -> Any:
        return real(
            [sys.executable, "-c", "import os, sys; sys.stderr.write('last words'); sys.stderr.flush(); os.abort()"], **options
        )

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(GraphError, match="the helper process of the export ended with status -6"):
        export.export_beside(checkpoint, tmp_path)
    assert "last words" in caplog.text

    def late(command: list[str], **_: Any) -> Any:
        raise subprocess.TimeoutExpired(command, 900)

    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(GraphError, match="did not end within 900 s"):
        export.export_beside(checkpoint, tmp_path)


def test_without_torch_the_helper_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = resolve(str(write(tmp_path, preprocess=SPEC)))
    real = subprocess.run

    def slim(command: list[str], **options: Any) -> Any:
        program = "import sys; sys.modules['torch'] = None; from model.export import main; sys.exit(main())"
        return real([sys.executable, "-c", program, command[-1]], **options)

    monkeypatch.setattr(subprocess, "run", slim)
    with pytest.raises(GraphError, match="exporting needs torch, which is not installed here"):
        export.export_beside(checkpoint, tmp_path)


def test_without_openvino_there_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "openvino_version", lambda: None)
    with pytest.raises(GraphError, match="OpenVINO is not installed here"):
        export.key_of(resolve(str(write(tmp_path, preprocess=SPEC))), "float32")
    assert runtime.openvino_version() is not None
