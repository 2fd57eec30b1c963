"""Inputs that others prepared, through the same model: what they come to is what the same image comes to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from model.engines.base import Engine, Outputs
from model.errors import EngineError, TensorUnusable
from model.image import DEFAULT_LIMITS
from model.manager import Item, LoadedModel, load
from model.preprocess import normalise
from model.types import ImageInfo
from tests.images import encode, photograph
from tests.model.test_manager import FakeEngine
from tests.model.test_manager import request as wish

CAT, COFFEE = (encode(photograph(name), "PNG") for name in ("chelsea", "coffee"))


@pytest.fixture(scope="module", params=["eager", "openvino"])
def model(request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    before = torch.get_num_threads()
    loaded = load(wish("bundled:cifar10", engine=request.param))
    yield loaded
    loaded.close()
    torch.set_num_threads(before)


def test_the_pixels_of_an_image_are_the_image(model: LoadedModel) -> None:
    item = model.prepare(CAT)
    given = model.prepare_array(item.pixels)
    height, width = model.info.preprocess.size
    assert given.image == ImageInfo(width, height, "uint8 array")
    (by_bytes,), (by_pixels,) = model.run([item]), model.run([given])
    assert by_pixels.logits.tolist() == by_bytes.logits.tolist()
    assert by_pixels.attention.tolist() == by_bytes.attention.tolist()


def test_a_normalised_tensor_is_the_image_but_for_rounding(model: LoadedModel) -> None:
    item = model.prepare(CAT)
    given = model.prepare_array(normalise(item.pixels, model.info.preprocess))
    assert given.image.format == "float32 array"
    (by_bytes,), (by_tensor,) = model.run([item]), model.run([given])
    assert by_tensor.logits == pytest.approx(by_bytes.logits, abs=1e-4)


def test_kinds_that_meet_in_one_batch_stay_in_order(model: LoadedModel) -> None:
    items = [model.prepare(CAT), model.prepare(COFFEE)]
    tensors = [model.prepare_array(normalise(item.pixels, model.info.preprocess)) for item in items]
    mixed = model.run([tensors[1], items[0], items[1], tensors[0]])
    alone = [model.run([item])[0].logits for item in items]
    for row, wanted in zip(mixed, (alone[1], alone[0], alone[1], alone[0]), strict=True):
        assert row.logits == pytest.approx(wanted, abs=1e-4)
    assert np.abs(alone[0] - alone[1]).max() > 0.1


def test_what_is_no_input_is_refused(model: LoadedModel) -> None:
    for array in (np.zeros((3, 3, 3), np.uint8), np.full((3, *model.info.preprocess.size), np.nan, np.float32)):
        with pytest.raises(TensorUnusable):
            model.prepare_array(array)


def test_scores_of_every_class(model: LoadedModel) -> None:
    (row,) = model.run([model.prepare(CAT)])
    ranking = model.top_k(row, 10)
    probabilities = model.scores(row, "softmax")
    assert probabilities.dtype == np.float32
    assert [probabilities[p.index] for p in ranking] == pytest.approx([p.score for p in ranking], abs=1e-7)
    assert model.scores(row, "none").tolist() == row.logits.tolist()
    assert [p.index for p in model.top_k(row, 10, "none")] == [p.index for p in ranking]


def test_attention_that_is_not_finite_is_a_failure_of_the_engine() -> None:
    class Unsound(FakeEngine):
        def run(self, *args: object, **more: object) -> Outputs:
            return Outputs(np.zeros((1, 10), np.float32), np.full((1, 2, 2), np.nan, np.float32), None)

    engine: Engine = Unsound(np.zeros((1, 10), np.float32))
    sound = load(wish("bundled:cifar10"))
    unsound = LoadedModel(sound.info, engine, DEFAULT_LIMITS)
    with pytest.raises(EngineError, match="not finite"):
        unsound.run([Item(np.zeros((32, 32, 3), np.uint8), ImageInfo(1, 1, "PNG"))])
    sound.close()
