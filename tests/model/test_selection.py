"""`model.selection` and `model.engines.candidates`: what is tried, in which order, and what happens when it fails."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from model import engines, export, selection
from model.checkpoint import Checkpoint, resolve
from model.engines import candidates as candidates_module
from model.engines import openvino, proof
from model.engines.base import Engine, Outputs, Plan
from model.engines.candidates import candidates
from model.errors import DeviceError, EngineError, GraphError
from model.selection import Wish, graph_folder, graph_folders, select
from model.types import Choice
from tests.model.small import observed, tiny, write

SPEC = {"size": [32, 40]}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper process costs seconds; tests/model/test_export.py has it."""
    monkeypatch.setattr(export, "export_beside", export.export)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return resolve(str(write(tmp_path, preprocess=SPEC)))


def tried(engine: str, precision: str, device: str = "cpu") -> list[str]:
    return [str(c) for c in candidates(engine, device, precision, 1)]


def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates_module, "choose_device", lambda _: Choice("cuda:0", "a test said so"))
    monkeypatch.setattr("model.device.choose_device", lambda _: Choice("cuda:0", "a test said so"))


def test_the_order_on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "computes_bfloat16", lambda: True)
    assert tried("auto", "auto") == ["openvino (bfloat16)", "openvino (float32)", "eager (float32)"]
    assert tried("auto", "float32") == ["openvino (float32)", "eager (float32)"]
    assert tried("auto", "bfloat16") == ["openvino (bfloat16)", "eager (bfloat16)"]
    assert tried("auto", "int8") == tried("openvino", "int8") == ["openvino (int8)"]
    assert tried("openvino", "auto") == ["openvino (bfloat16)", "openvino (float32)"]
    assert tried("eager", "auto") == ["eager (float32)"]
    assert tried("compile", "auto") == ["compile (float32)"]
    monkeypatch.setattr(openvino, "computes_bfloat16", lambda: False)
    assert tried("auto", "auto") == ["openvino (float32)", "eager (float32)"]


def test_without_openvino_the_reference_serves(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise EngineError("OpenVINO cannot be loaded here")

    monkeypatch.setattr(candidates_module, "openvino", broken)
    assert tried("auto", "auto") == ["eager (float32)"]
    assert "OpenVINO is not used: OpenVINO cannot be loaded here" in caplog.text
    monkeypatch.setattr(candidates_module, "openvino_version", lambda: None)
    assert tried("auto", "auto") == ["eager (float32)"]


def test_the_order_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch)
    assert tried("auto", "bfloat16") == ["compile (bfloat16)", "eager (bfloat16)"]
    assert tried("eager", "float32") == ["eager (float32)"]
    for engine, precision in (("openvino", "float32"), ("auto", "int8")):
        with pytest.raises(DeviceError, match=f"engine '{engine}' does not go with device cuda:0 and precision '{precision}'"):
            tried(engine, precision)


def test_no_such_engine_or_combination() -> None:
    with pytest.raises(EngineError, match="engine 'warp': it may be auto, openvino, compile, eager"):
        tried("warp", "auto")
    with pytest.raises(DeviceError, match="engine 'eager' does not go with device cpu and precision 'int8'"):
        tried("eager", "int8")


@pytest.mark.usefixtures("in_this_process")
def test_auto_takes_what_proves_itself_and_says_so(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wish = Wish(device="cpu", threads=1, cache_dir=tmp_path / "cache")
    with caplog.at_level(logging.INFO, "sknet.model"):
        first, second = select(checkpoint, wish), select(checkpoint, wish)
    assert first.choice.value == second.choice.value == "openvino"
    assert "not used" not in first.choice.reason
    assert first.deviation is not None
    assert first.deviation <= proof.BOUNDS[first.engine.placement.dtype.value]
    assert caplog.text.count("exporting") == 1
    assert len(list((tmp_path / "cache" / "graphs").iterdir())) == 1


@pytest.mark.usefixtures("in_this_process")
def test_bfloat16_that_is_too_far_falls_back_to_float32(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(openvino, "computes_bfloat16", lambda: True)
    monkeypatch.setitem(proof.BOUNDS, "bfloat16", -1.0)
    found = select(checkpoint, Wish(device="cpu", threads=1, cache_dir=tmp_path))
    assert (found.choice.value, found.engine.placement.dtype.value) == ("openvino", "float32")
    assert found.choice.reason.endswith("not used: openvino (bfloat16)")
    assert "engine openvino (bfloat16) is not used: its answers deviate by" in caplog.text
    with pytest.raises(EngineError, match="its answers deviate by"):  # asked for by name, it is not replaced in silence
        select(checkpoint, Wish(engine="openvino", precision="bfloat16", device="cpu", threads=1, cache_dir=tmp_path))


def test_a_graph_that_cannot_be_made_is_tried_once_and_the_reference_serves(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def fail(_checkpoint: Checkpoint, folder: Path) -> Any:
        asked.append(folder)
        raise GraphError("the network cannot be exported (ValueError)")

    monkeypatch.setattr(export, "export_beside", fail)
    monkeypatch.setattr(openvino, "computes_bfloat16", lambda: True)
    found = select(checkpoint, Wish(device="cpu", threads=1, cache_dir=tmp_path))
    assert (found.choice.value, found.deviation) == ("eager", None)
    assert found.choice.reason.endswith("not used: openvino (bfloat16)")
    assert len(asked) == 1


@pytest.mark.usefixtures("in_this_process")
def test_a_cache_that_cannot_be_written(checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    found = select(checkpoint, Wish(device="cpu", threads=1, precision="float32", cache_dir=tmp_path / "cache"))
    assert found.choice.value == "openvino"
    assert "the exported graph will not outlive this process" in caplog.text


def test_an_engine_that_fails_its_proof_is_closed(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Engine] = []
    real = engines.make

    def make(name: str, plan: Plan) -> Engine:
        made.append(real(name, plan))
        attention = made[-1].run(proof.images((32, 40))).attention
        made[-1].reference = Outputs(np.zeros((proof.COUNT, 3), np.float32), attention, None)
        return made[-1]

    monkeypatch.setattr(engines, "make", make)
    with pytest.raises(EngineError, match="deviate"):
        select(checkpoint, Wish(engine="eager", device="cpu", threads=1))
    with pytest.raises(EngineError, match="closed"):
        made[0].run(proof.images((32, 40)))


WRONG = {
    "units in another order": (lambda attention: np.roll(attention, 1, 1), r"0\.\d+"),
    "kernels exchanged": (lambda attention: attention[..., ::-1], r"0\.\d+"),
    "no numbers": (lambda attention: attention * np.float32("nan"), "inf"),
    "a unit missing": (lambda attention: attention[:, 1:], "inf"),
    "all nought": (np.zeros_like, r"0\.\d+"),
}


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("kind", [("eager", "bfloat16"), ("openvino", "float32")], ids="-".join)
@pytest.mark.parametrize(("change", "far"), WRONG.values(), ids=WRONG)
def test_an_engine_whose_attention_is_wrong_is_closed_and_not_used(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: tuple[str, str],
    change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
    far: str,
) -> None:
    made: list[Engine] = []
    real = engines.make

    def make(name: str, plan: Plan) -> Engine:
        engine = real(name, plan)
        run = engine.run

        def wrong(*given: Any, **more: Any) -> Outputs:
            found = run(*given, **more)
            return found._replace(attention=change(found.attention))

        monkeypatch.setattr(engine, "run", wrong)
        made.append(engine)
        return engine

    wish = Wish(engine=kind[0], precision=kind[1], device="cpu", threads=1, cache_dir=tmp_path)
    select(checkpoint, wish).engine.close()  # as it is, it proves itself
    monkeypatch.setattr(engines, "make", make)
    bound = proof.ATTENTION_BOUNDS[kind[1]]
    with pytest.raises(EngineError, match=f"its attention deviates by {far} from the float32 reference's; .* up to {bound:g}$"):
        select(checkpoint, wish)
    with pytest.raises(EngineError, match="closed"):
        made[0].run(proof.images((32, 40)))


@pytest.mark.usefixtures("in_this_process")
def test_a_graph_of_an_earlier_format_is_left_alone_and_made_anew(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache" / "graphs"
    made = export.export(checkpoint, folder)
    before = replace(made.key, format=1)
    old = made.path.rename(folder / before.folder)  # as version 1 left it: one output, and answers in a file of their own
    (old / "known.npz").unlink()
    np.save(old / "reference.npy", made.known.logits)
    card = json.loads((old / "card.json").read_text())
    (old / "card.json").write_text(json.dumps({**card, "key": {**card["key"], "format": 1}}))
    kept = {path.name: path.read_bytes() for path in old.iterdir()}
    wish = Wish(engine="openvino", precision="float32", device="cpu", threads=1, cache_dir=tmp_path / "cache")
    with caplog.at_level(logging.INFO, "sknet.model"):
        for _ in range(2):
            engine = select(checkpoint, wish).engine
            assert engine.run(proof.images((32, 40))).attention.shape == (proof.COUNT, 2, 2)
            engine.close()
    assert caplog.text.count("exporting") == 1
    assert "is not used" not in caplog.text  # it is nobody's fault
    assert {path.name: path.read_bytes() for path in old.iterdir()} == kept
    assert {path.name for path in folder.iterdir()} == {old.name, made.key.folder}


def test_int8_without_its_graph_says_how_to_make_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="make one with `sknet calibrate --images DIR`"):
        select(checkpoint, Wish(precision="int8", device="cpu", threads=1, cache_dir=tmp_path))


def test_where_graphs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert graph_folder(tmp_path) == tmp_path / "graphs"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert graph_folder(None) == tmp_path / ".cache" / "sknet" / "graphs"
    assert selection.graph_folder is graph_folder


def test_where_a_graph_is_looked_for(checkpoint: Checkpoint, tmp_path: Path) -> None:
    beside, cache = tmp_path / "graphs", tmp_path / "cache" / "graphs"
    bundled = replace(checkpoint, reference="bundled:any")
    wish = Wish(cache_dir=tmp_path / "cache")
    pinned = replace(wish, sha256="0" * 64)
    assert list(graph_folders(checkpoint, wish)) == list(graph_folders(bundled, pinned)) == [beside, cache]
    assert list(graph_folders(checkpoint, pinned)) == [cache]
    assert list(graph_folders(checkpoint, replace(wish, graphs=tmp_path))) == [tmp_path]


@pytest.mark.usefixtures("in_this_process")
def test_with_a_pin_a_graph_of_other_weights_beside_the_file_does_not_answer(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Whoever can write beside the file can write a graph that proves itself, with the key of the pinned weights."""
    folder = tmp_path / "other"
    folder.mkdir()
    other = tiny()
    other.fc.bias.data += 7
    made = export.export(resolve(str(write(folder, other.state_dict(), preprocess=SPEC))), folder / "graphs")
    planted = tmp_path / "graphs" / export.key_of(checkpoint, "float32").folder
    shutil.copytree(made.path, planted)
    card = (planted / "card.json").read_text()
    (planted / "card.json").write_text(card.replace(made.key.checkpoint, checkpoint.digest))

    wish = Wish(engine="openvino", precision="float32", device="cpu", threads=1, cache_dir=tmp_path / "cache")
    images = proof.images((32, 40))
    expected = proof.reference(observed(), checkpoint.preprocess).logits
    fooled = select(checkpoint, wish).engine.run(images).logits
    assert np.abs(fooled - expected).max() > 6
    pinned = select(checkpoint, replace(wish, sha256=checkpoint.digest)).engine.run(images).logits
    np.testing.assert_allclose(pinned, expected, rtol=0, atol=1e-4)
    assert (tmp_path / "cache" / "graphs" / planted.name).is_dir()


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.usefixtures("in_this_process")
def test_without_a_home_graphs_are_kept_for_the_life_of_the_process(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Path, "home", _no_home)
    assert select(checkpoint, Wish(engine="eager", device="cpu", threads=1)).choice.value == "eager"
    assert "home" not in caplog.text  # the reference needs no graph
    found = select(checkpoint, Wish(device="cpu", threads=1, precision="float32"))
    assert found.choice.value == "openvino"
    assert "this user has no home folder to keep graphs in: the exported graph will not outlive this process" in caplog.text


@pytest.mark.usefixtures("in_this_process")
def test_where_no_folder_can_be_made_at_all_the_reference_serves(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(**_: object) -> str:
        raise OSError(30, "Read-only file system")

    selection._passing_folder.cache_clear()
    monkeypatch.setattr(tempfile, "mkdtemp", read_only)
    monkeypatch.setattr(Path, "home", _no_home)
    (tmp_path / "cache").write_text("a file, not a folder")
    for cache_dir in (None, tmp_path / "cache"):
        with pytest.raises(GraphError, match=r"no temporary folder can be made \(Read-only file system\)"):
            select(checkpoint, Wish(engine="openvino", device="cpu", threads=1, cache_dir=cache_dir))
        assert select(checkpoint, Wish(device="cpu", threads=1, cache_dir=cache_dir)).choice.value == "eager"


@pytest.mark.usefixtures("in_this_process")
def test_where_the_disk_is_full_graphs_are_kept_elsewhere(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    found = select(checkpoint, Wish(engine="openvino", device="cpu", threads=1, precision="float32", cache_dir=tmp_path))
    assert found.choice.value == "openvino"
    assert f"{tmp_path}/graphs cannot be written (No space left on device): the exported graph will not outlive" in caplog.text
    assert list((tmp_path / "graphs").iterdir()) == []


def test_a_cached_graph_serves_without_torch(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from model.manager import LoadRequest, load
model = load(LoadRequest(checkpoint=sys.argv[1], cache_dir=Path(sys.argv[2]), threads=1))
print(model.info.engine.value, "torch" in sys.modules, "torchvision" in sys.modules)
"""
    command = [sys.executable, "-c", program, str(write(tmp_path, preprocess=SPEC)), str(tmp_path / "cache")]
    for _ in range(2):  # neither the first time, when a helper process exports it, nor the second
        done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
        assert done.stdout.split() == ["openvino", "False", "False"]
