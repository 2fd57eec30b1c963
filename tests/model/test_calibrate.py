"""`model.calibrate` and `model.quantise`: photographs -> an int8 graph that serves, and nothing where it cannot be made."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from model import export, graphs
from model.calibrate import MAX_FILE_BYTES, Calibration, calibrate
from model.checkpoint import resolve
from model.engines import proof
from model.engines.runtime import openvino
from model.errors import EngineError, ImageError
from model.graphs import Known
from model.manager import Item, LoadedModel, LoadRequest, load
from model.quantise import in_float
from model.selection import graph_folder
from tests.model import photographs
from tests.model.small import observed, tiny, write

PHOTOGRAPHS = 15


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Engines set torch's threads for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Told:
    """What a calibration says while it works."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int]] = []
        self.skipped: dict[str, str] = {}

    def progress(self, items: Sequence[Any], what: str) -> Iterable[Any]:
        self.steps.append((what, len(items)))
        return items

    def skip(self, path: Path, reason: str) -> None:
        self.skipped[path.name] = reason


def request(folder: Path, **more: Any) -> LoadRequest:
    """For the tiny checkpoint in `folder`, with a cache beside it."""
    return LoadRequest(checkpoint=str(folder / "tiny.safetensors"), **{"cache_dir": folder / "cache", "threads": 1, **more})


def run(folder: Path, images: Path, most: int = 300, told: Told | None = None) -> Calibration:
    told = told or Told()
    return calibrate(request(folder), images, most=most, progress=told.progress, skipped=told.skip)


class Made(NamedTuple):
    folder: Path
    images: Path
    told: Told
    result: Calibration


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its float32 graph in the cache, which saves each test the helper process."""
    folder = tmp_path_factory.mktemp("exported")
    write(folder, preprocess={"size": [32, 40]})
    export.export(resolve(str(folder / "tiny.safetensors")), graph_folder(folder / "cache"))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs.write(tmp_path_factory.mktemp("photographs"), PHOTOGRAPHS)


@pytest.fixture(scope="module")
def made(exported: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = shutil.copytree(exported, tmp_path_factory.mktemp("made") / "checkpoint")
    told = Told()
    return Made(folder, images, told, run(folder, images, told=told))


@pytest.fixture
def fresh(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "checkpoint")


def prepared(model: LoadedModel, images: Path) -> list[Item]:
    return [model.prepare(path.read_bytes()) for path in sorted(images.rglob("*.png"))]


def test_it_serves_in_int8_and_agrees_with_float32(made: Made) -> None:
    fast = load(request(made.folder, engine="openvino", precision="int8"))
    exact = load(request(made.folder, engine="eager", precision="float32"))
    assert (fast.info.engine.value, fast.info.dtype.value) == ("openvino", "int8")
    assert fast.info.deviation == pytest.approx(made.result.info.deviation or 0)
    items = prepared(exact, made.images)
    rows = [exact.run([item])[0] for item in items]
    expected = np.stack([row.logits for row in rows])
    rounded = [fast.run([item])[0] for item in items]
    answers = np.stack([row.logits for row in rounded])
    deviation = proof.deviation(answers, expected)
    assert 1e-5 < deviation < 0.1  # not float32 under another name, and the same network
    assert 0 < made.result.deviation < 0.1
    shares = [np.stack([row.attention for row in kind]) for kind in (rounded, rows)]
    assert 1e-6 < proof.attention_deviation(shares[0], shares[1]) < proof.ATTENTION_BOUNDS["int8"]
    np.testing.assert_allclose(shares[0].sum(2), 1, rtol=0, atol=1e-3)
    assert (answers.argmax(1) == expected.argmax(1)).mean() >= 0.8
    assert 0.6 <= made.result.agreement <= 1
    fast.close()
    exact.close()


def test_it_lies_beside_the_checkpoint_and_says_what_it_is(made: Made) -> None:
    graph, checkpoint = made.result.graph, resolve(str(made.folder / "tiny.safetensors"))
    assert graph.path.parent == made.folder / "graphs"
    found = graphs.find(export.key_of(checkpoint, "int8"), [graph.path.parent])
    assert found is not None
    assert found.note == graph.note
    assert f"over {made.result.images} images" in graph.note
    assert "NNCF 3." in graph.note
    source = export.find(checkpoint, "float32", [graph_folder(made.folder / "cache")])
    assert source is not None
    for field in fields(Known):  # proved by float32's answers, not by its own
        assert np.array_equal(getattr(found.known, field.name), getattr(source.known, field.name))
    assert (found.parameters, found.gmacs) == (source.parameters, source.gmacs)
    assert graph.bytes == sum(path.stat().st_size for path in graph.path.glob("*"))


def test_a_fifth_of_the_images_is_compared_and_the_rest_is_seen(made: Made) -> None:
    assert (made.result.images, made.result.kept_out) == (12, 3)
    assert made.told.steps == [("reading", 15), ("calibrating", 12)]
    assert made.told.skipped == {}


def test_the_attention_stays_in_float_and_the_branches_do_not(made: Made) -> None:
    model = openvino().Core().read_model(made.result.graph.xml)
    kept = set(in_float(model))
    assert len([name for name in kept if "ReduceMean" not in name]) == 2 * 2  # two units, each with fc_reduce and fc_select
    rounded = {op.get_friendly_name(): _rounded(op) for op in model.get_ops() if op.get_type_name() == "Convolution"}
    assert len(rounded) > len(kept)
    assert {name for name, is_rounded in rounded.items() if not is_rounded} == {name for name in kept if name in rounded}


def _rounded(op: Any) -> bool:
    return bool(op.input_value(0).get_node().get_type_name() == "FakeQuantize")


def test_no_more_images_are_read_than_asked_for(fresh: Path, images: Path) -> None:
    told = Told()
    result = run(fresh, images, most=8, told=told)
    assert told.steps == [("reading", 10), ("calibrating", 7)]
    assert (result.images, result.kept_out) == (7, 3)


def test_the_same_images_give_the_same_graph(made: Made, fresh: Path) -> None:
    again = run(fresh, made.images)
    assert again.graph.xml.with_suffix(".bin").read_bytes() == made.result.graph.xml.with_suffix(".bin").read_bytes()
    assert again.deviation == pytest.approx(made.result.deviation, rel=0.01)


def test_what_is_no_usable_image_is_skipped_with_its_reason(fresh: Path, images: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(images, tmp_path / "mixed")
    (mixed / "notes.txt").write_text("no image")
    (mixed / "cut.png").write_bytes((mixed / "chelsea" / "0.png").read_bytes()[:900])
    with (mixed / "film.mp4").open("wb") as film:
        film.truncate(MAX_FILE_BYTES + 1)
    told = Told()
    result = run(fresh, mixed, told=told)
    assert result.images + result.kept_out == PHOTOGRAPHS
    assert set(told.skipped) == {"notes.txt", "cut.png", "film.mp4"}
    assert told.skipped["film.mp4"] == "larger than 100 MB"
    assert "cut short" in told.skipped["cut.png"]


@pytest.mark.parametrize(
    ("count", "says"),
    [(9, "9 of 9 files are usable images; calibrating needs 10 or more"), (0, "has no files"), (-1, "is no folder")],
)
def test_too_few_images_are_an_error(fresh: Path, tmp_path: Path, count: int, says: str) -> None:
    folder = tmp_path / "few"
    if count >= 0:
        folder.mkdir()
        photographs.write(folder, count)
    with pytest.raises(ImageError, match=says):
        run(fresh, folder)
    assert list(fresh.glob("graphs/*")) == []


def test_without_an_artifact_the_engine_says_how_to_make_one(fresh: Path) -> None:
    for engine in ("openvino", "auto"):
        with pytest.raises(EngineError, match=r"no int8 graph of .*: make one with `sknet calibrate --images DIR`"):
            load(request(fresh, engine=engine, precision="int8"))


def test_without_nncf_it_says_what_to_install(fresh: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    told = Told()
    with pytest.raises(EngineError, match=r"pip install 'sknet-serve\[int8\]'"):
        run(fresh, images, told=told)
    assert told.steps == []  # at once, not after reading


def test_where_nothing_can_be_written_beside_it_goes_into_the_cache(
    fresh: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (fresh / "graphs").write_text("a file where the folder should be")
    result = run(fresh, images)
    assert result.graph.path.parent == graph_folder(fresh / "cache")
    assert f"the int8 graph goes into the cache folder {graph_folder(fresh / 'cache')}" in caplog.text
    model = load(request(fresh, precision="int8"))
    assert model.info.dtype.value == "int8"
    model.close()


def test_where_nothing_can_be_written_at_all_is_an_error(fresh: Path, images: Path) -> None:
    shutil.rmtree(fresh / "cache")
    for name in ("graphs", "cache"):
        (fresh / name).write_text("a file where the folder should be")
    with pytest.raises(EngineError, match=r"no graph can be written to .* or .*"):
        run(fresh, images)


def test_a_graph_that_would_be_refused_is_not_kept(fresh: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(proof.BOUNDS, "int8", 1e-9)
    with pytest.raises(EngineError, match=r"was not kept: its answers deviate by .* from the float32 reference's"):
        run(fresh, images)
    assert list((fresh / "graphs").iterdir()) == []


def test_a_graph_that_serves_is_not_lost_to_one_that_would_be_refused(
    made: Made, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(made.folder, tmp_path / "checkpoint")
    before = {path.name: path.read_bytes() for path in folder.glob("graphs/*/*")}
    assert len(before) == 4
    with monkeypatch.context() as patch:
        patch.setitem(proof.BOUNDS, "int8", 1e-9)
        with pytest.raises(EngineError, match="was not kept"):
            run(folder, images, most=8)
    assert {path.name: path.read_bytes() for path in folder.glob("graphs/*/*")} == before
    assert [path.name for path in (folder / "graphs").iterdir()] == [made.result.graph.path.name]
    again = run(folder, images, most=8)  # and one that is not refused takes its place
    assert again.graph.path.name == made.result.graph.path.name
    assert (again.graph.path / "card.json").read_bytes() != before["card.json"]


def test_with_a_pin_it_goes_where_a_pinned_service_looks(fresh: Path, images: Path) -> None:
    pinned = request(fresh, sha256=resolve(str(fresh / "tiny.safetensors")).digest)
    told = Told()
    result = calibrate(pinned, images, most=8, progress=told.progress, skipped=told.skip)
    assert result.graph.path.parent == graph_folder(fresh / "cache")
    assert not (fresh / "graphs").exists()
    load(request(fresh, sha256=pinned.sha256, precision="int8")).close()


def test_ranges_of_dark_pictures_are_refused(fresh: Path, images: Path, tmp_path: Path) -> None:
    dark = shutil.copytree(images, tmp_path / "dark")
    for path in dark.rglob("*.png"):
        with Image.open(path) as image:
            image.point(lambda value: value // 10).save(path)
    with pytest.raises(EngineError, match="photographs of every brightness and contrast"):
        run(fresh, dark)


def test_the_graph_of_another_network_is_refused(made: Made, fresh: Path) -> None:
    """The bounds tell int8 from float32's answers to other weights."""
    graph = made.result.graph
    other = tiny()
    other.fc.weight.data = other.fc.weight.data.roll(1, 0)  # the classes in another order
    answers = proof.reference(observed(other), resolve(str(fresh / "tiny.safetensors")).preprocess)
    known = replace(graph.known, logits=answers.logits, attention=answers.attention)

    def copied(xml: Path) -> None:
        for suffix in (".xml", ".bin"):
            shutil.copy(graph.xml.with_suffix(suffix), xml.with_suffix(suffix))

    graphs.write(fresh / "graphs", graph.key, known, graph.parameters, graph.gmacs, copied)
    with pytest.raises(EngineError, match=r"its answers deviate by .* from the float32 reference's; accepted is up to 0\.1"):
        load(request(fresh, precision="int8"))


def test_logging_and_standard_output_are_left_alone(fresh: Path, images: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kind = logging.getLoggerClass()
    run(fresh, images)
    assert logging.getLoggerClass() is kind
    assert logging.getLogger("nncf").handlers == []
    assert capfd.readouterr() == ("", "")
