"""`model.manager`: a reference becomes a model that serves, or an error and nothing left behind."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model import engines, manager
from model.checkpoint import build_network, resolve
from model.device import Placement, place
from model.engines.base import Head, Outputs
from model.errors import (
    CheckpointCorrupt,
    CheckpointMismatch,
    DeviceError,
    EngineError,
    ImageTooLarge,
    ImageUndecodable,
    UnknownVariant,
)
from model.image import decode_reduced
from model.manager import LoadedModel, LoadRequest, Row, load
from model.preprocess import normalise
from model.types import Choice
from tests.images import encode, photograph
from tests.model.small import tiny, write

CAT = encode(photograph("chelsea"), "JPEG", quality=95)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPEC = {"size": [32, 40]}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Engines set torch's threads for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def undecided(count: int) -> npt.NDArray[np.float32]:
    return np.full((count, 2, 2), 0.5, np.float32)


ONES = Outputs(np.ones((4, 3), np.float32), undecided(4), None)


@dataclass
class FakeEngine:
    """Gives `rows` for whatever comes, moved a little by what that is, or fails with `error`. Its two units are undecided."""

    rows: npt.NDArray[np.float32]
    error: Exception | None = None
    reference: Outputs | None = None
    choice: Choice = field(default_factory=lambda: Choice("fake", "a test said so"))
    placement: Placement = field(default_factory=lambda: place("cpu", "float32", 1))
    streams: Choice = field(default_factory=lambda: Choice("1", "a test said so"))
    batch_size: int = 1
    parameters: int = 1
    gmacs: float = 0.1
    head: Head = field(default_factory=lambda: Head(np.ones((3, 16), np.float32), np.zeros(3, np.float32)))
    closed: int = 0
    alone: list[bool] = field(default_factory=list)

    def run(self, batch: npt.NDArray[Any], *, alone: bool = False, features: bool = False) -> Outputs:
        self.alone.append(alone)
        if self.error:
            raise self.error
        maps = np.ones((len(batch), 16, 2, 2), np.float32) if features else None
        return Outputs(self.rows + np.float32(1e-6 * batch.mean()), undecided(len(batch)), maps)

    def close(self) -> None:
        self.closed += 1


def request(checkpoint: Path | str, **more: Any) -> LoadRequest:
    return LoadRequest(checkpoint=str(checkpoint), **{"device": "cpu", "threads": 1, "engine": "eager", **more})


def test_the_bundled_checkpoint_end_to_end() -> None:
    model = load(request("bundled:cifar10"))
    item = model.prepare(CAT)
    assert (item.image.width, item.image.height, item.image.format) == (451, 300, "JPEG")
    assert item.pixels.shape == (*model.info.preprocess.size, 3)
    assert item.pixels.dtype == np.uint8
    (row,) = model.run([item])
    ranking = model.top_k(row, 10)
    with torch.inference_mode():  # by hand, step by step
        array = normalise(item.pixels, model.info.preprocess)
        direct = build_network(resolve("bundled:cifar10"))(torch.from_numpy(array[None])).softmax(1)[0]
    assert [p.score for p in ranking] == pytest.approx(direct.sort(descending=True).values.tolist(), abs=1e-6)
    assert ranking[0].label == CLASSES[int(direct.argmax())]
    assert sum(p.score for p in ranking) == pytest.approx(1)
    assert sorted(p.index for p in ranking) == list(range(10))

    info = model.info
    file = Path(manager.__file__).with_name("checkpoints") / "cifar10.safetensors"
    assert info.digest == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    assert (info.checkpoint, info.num_classes, info.device.value, info.dtype.value) == ("bundled:cifar10", 10, "cpu", "float32")
    assert info.parameters > 1_000_000
    assert info.gmacs > 0.01
    assert info.load_seconds > 0
    assert "cropped to the central 32x32" in model.preprocess_sentence
    for choice in (info.engine, info.device, info.dtype, info.memory_format, info.threads):
        assert choice.value
        assert choice.reason
    model.close()
    with pytest.raises(EngineError, match="closed"):
        model.run([item])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    state = {**tiny().state_dict(), "fc.bias": torch.full((3,), value)}
    with pytest.raises(CheckpointCorrupt, match="the weights hold NaN or infinity"):
        load(request(write(tmp_path, state, preprocess=SPEC)))


def test_labels_must_be_as_many_as_classes(tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("ant\nbee\n")
    with pytest.raises(CheckpointMismatch, match="2 labels for 3 classes"):
        load(request(write(tmp_path, preprocess=SPEC), labels_file=tmp_path / "two.txt"))


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        (FakeEngine(np.zeros((1, 2), np.float32)), "gives 2 outputs for 3 labels"),
        (FakeEngine(np.full((1, 3), np.nan, np.float32)), "not finite"),
        (FakeEngine(np.full((1, 3), np.nan, np.float32), reference=ONES), "deviate by inf"),
        (FakeEngine(np.full((1, 3), 1.1, np.float32), reference=ONES), r"deviate by 0\.1.*up to 0\.001"),
        (FakeEngine(np.zeros((1, 3), np.float32), EngineError("out of memory")), "out of memory"),
    ],
)
def test_a_load_that_fails_closes_its_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: FakeEngine, says: str
) -> None:
    monkeypatch.setattr(engines, "make", lambda *_: engine)
    with pytest.raises((EngineError, CheckpointCorrupt), match=says):
        load(request(write(tmp_path, preprocess=SPEC)))
    assert engine.closed == 1


@pytest.mark.parametrize("rows", [(1, 3), (3, 3), (2, 4), (2,)])
def test_an_engine_must_give_one_row_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: tuple[int, ...]) -> None:
    engine = FakeEngine(np.zeros((1, 3), np.float32))
    monkeypatch.setattr(engines, "make", lambda *_: engine)
    model = load(request(write(tmp_path, preprocess=SPEC)))
    engine.rows = np.zeros(rows, np.float32)
    item = model.prepare(CAT)
    with pytest.raises(EngineError, match="for 2 images of 3 classes"):
        model.run([item, item])
    assert engine.closed == 0


def test_a_row_that_is_not_finite_is_no_ranking(tmp_path: Path) -> None:
    model = load(request(write(tmp_path, preprocess=SPEC)))
    with pytest.raises(EngineError, match="not finite"):
        model.top_k(Row(np.array([0, np.nan, 1], np.float32), undecided(1)[0]), 2)


def test_two_models_at_once(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    doubled = {key: value * 2 if key.startswith("fc.") else value for key, value in tiny().state_dict().items()}
    first = load(request(write(tmp_path, preprocess=SPEC)))
    second = load(request(write(tmp_path / "other", doubled, labels=["Ameise", "Biene", "Katze"], preprocess=SPEC)))
    item = first.prepare(CAT)
    (one,), (two,) = first.run([item]), second.run([item])
    np.testing.assert_allclose(two.logits, 2 * one.logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(two.attention, one.attention, rtol=0, atol=1e-6)  # only the classifier was doubled
    assert first.top_k(one, 1)[0].index == second.top_k(two, 1)[0].index
    assert {p.label for p in second.top_k(two, 3)} == {"Ameise", "Biene", "Katze"}
    assert first.info.digest != second.info.digest
    first.close()
    np.testing.assert_array_equal(second.run([item])[0].logits, two.logits)  # one's end is not the other's


def test_several_threads_get_what_one_gets() -> None:
    model = load(request("bundled:cifar10"))
    images = [
        encode(photograph(name, (200 + 31 * i, 150)), "PNG") for i, name in enumerate(("chelsea", "astronaut", "coffee") * 4)
    ]

    def classify(data: bytes) -> tuple[tuple[str, float], ...]:
        (row,) = model.run([model.prepare(data)])
        return tuple((p.label, p.score) for p in model.top_k(row, 3))

    serial = [classify(data) for data in images]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(classify, images))
    for one, other in zip(serial, parallel, strict=True):
        assert [label for label, _ in one] == [label for label, _ in other]
        np.testing.assert_allclose([score for _, score in one], [score for _, score in other], atol=1e-6)
    assert len(set(serial)) == len(images)


def test_images_are_judged_before_they_are_decoded(tmp_path: Path) -> None:
    model: LoadedModel = load(request(write(tmp_path, preprocess=SPEC), max_pixels=1000))
    with pytest.raises(ImageTooLarge):
        model.prepare(CAT)
    with pytest.raises(ImageUndecodable):
        model.prepare(b"no image at all")


def test_what_is_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UnknownVariant, match="cifar10"):
        load(request("bundled:cifar99"))
    file = write(tmp_path, preprocess=SPEC)
    with pytest.raises(EngineError, match="engine 'warp'"):
        load(request(file, engine="warp"))

    with pytest.raises(DeviceError, match="engine 'eager' does not go with device cpu and precision 'int8'"):
        load(request(file, precision="int8"))
    with pytest.raises(DeviceError, match="precision 'int4': it may be auto, float32, bfloat16 or int8"):
        load(request(file, precision="int4"))


def test_an_image_alone_in_the_model_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(np.zeros((1, 3), np.float32))
    monkeypatch.setattr(engines, "make", lambda *_: engine)
    model = load(request(write(tmp_path, preprocess=SPEC)))
    item = model.prepare(CAT)
    engine.alone.clear()
    model.run([item])
    inside, go = threading.Event(), threading.Event()

    def slow(*given: Any) -> Any:
        inside.set()
        assert go.wait(30)
        return real(*given)

    real = decode_reduced
    monkeypatch.setattr(manager, "decode_reduced", slow)
    other = threading.Thread(target=model.prepare, args=(CAT,))
    other.start()
    assert inside.wait(30)
    model.run([item])
    go.set()
    other.join()
    model.run([item])
    assert engine.alone == [True, False, True]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_a_failure_of_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    engine = FakeEngine(np.zeros((1, 3), np.float32))
    monkeypatch.setattr(engines, "make", lambda *_: engine)
    model = load(request(write(tmp_path, preprocess=SPEC)))
    item = model.prepare(CAT)
    engine.rows = np.array([[0.0, value, 0.0]], np.float32)
    with pytest.raises(EngineError, match="not finite for 1 images"):
        model.run([item])
    engine.rows = np.zeros((1, 3), np.float32)
    assert len(model.run([item])) == 1
