"""The engines: the same logits as the network itself, and only the package's own errors."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

from model import engines
from model.checkpoint import build_network, resolve
from model.complexity import count_parameters
from model.device import Placement, place
from model.engines import proof
from model.engines.base import Engine, Outputs, Plan, joined
from model.engines.eager import EagerEngine
from model.errors import EngineError
from model.graphs import Graph
from model.observed import Observed
from model.preprocess import normalise, prepare
from model.sknet import SKNet
from model.types import PreprocessSpec
from tests.images import photograph
from tests.model.small import observed, tiny

FLOAT32 = place("cpu", "float32", 1)
BFLOAT16 = place("cpu", "bfloat16", 1)
SPEC = PreprocessSpec(size=(32, 40))
BATCH = np.random.default_rng(0).standard_normal((3, 3, 32, 40)).astype(np.float32)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Engines set torch's threads for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def no_graph() -> Graph:
    raise AssertionError("this engine needs no graph")


def plan(network: Callable[[], SKNet] = tiny, spec: PreprocessSpec = SPEC, placement: Placement = FLOAT32) -> Plan:
    return Plan(network, no_graph, spec, placement)


def eager(placement: Placement = FLOAT32) -> Engine:
    return engines.make("eager", plan(placement=placement))


def test_eager_gives_the_networks_own_logits() -> None:
    engine = eager()
    with torch.inference_mode():
        expected = tiny()(torch.from_numpy(BATCH)).numpy()
    given = engine.run(BATCH).logits
    assert given.shape == (3, 3)
    assert given.dtype == np.float32
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-6)
    assert engine.parameters == count_parameters(tiny())
    assert engine.gmacs > 0
    assert (engine.choice.value, bool(engine.choice.reason)) == ("eager", True)
    assert torch.get_num_threads() == 1


def test_eager_leaves_its_input_alone() -> None:
    batch = BATCH.copy()
    eager(BFLOAT16).run(batch)
    assert (batch == BATCH).all()


def test_bfloat16_ranks_the_same_class_first() -> None:
    checkpoint = resolve("bundled:cifar10")
    pictures = [photograph(name) for name in ("chelsea", "astronaut", "coffee")]
    crops = [p.crop((x, y, x + side, y + side)) for p in pictures for side in (120, 240) for x in (0, 80, 160) for y in (0, 50)]
    batch = np.stack([prepare(crop, checkpoint.preprocess) for crop in crops])
    runs = []
    for placement in (FLOAT32, BFLOAT16):
        engine = engines.make("eager", plan(lambda: build_network(checkpoint), checkpoint.preprocess, placement))
        runs.append(engine.run(batch).logits)
        engine.close()
    exact, rounded = runs
    assert rounded.dtype == np.float32
    assert not np.array_equal(exact, rounded)
    best = np.sort(exact, axis=1)
    clear = best[:, -1] - best[:, -2] > 0.1  # in logits; nearer than that, rounding may decide
    assert clear.sum() >= len(crops) // 2
    assert (exact.argmax(1) == rounded.argmax(1))[clear].all()


def test_no_such_engine() -> None:
    def never() -> SKNet:
        raise AssertionError("an engine that does not exist needs no network")

    with pytest.raises(EngineError, match="engine 'warp': it may be openvino, compile, eager"):
        engines.make("warp", plan(never))


def test_an_engine_whose_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.ENGINES, "odd", "model.no_such_engine:Engine")
    with pytest.raises(EngineError, match=r"engine 'odd' needs model\.no_such_engine, which is not installed here"):
        engines.make("odd", plan())


@pytest.mark.parametrize("name", engines.ENGINES)
def test_every_engine_can_be_told_that_an_image_is_alone(name: str) -> None:
    module, _, kind = engines.ENGINES[name].partition(":")
    run = getattr(import_module(module), kind).run
    assert inspect.signature(run).parameters["alone"].default is False
    assert inspect.signature(run).parameters["features"].default is False


def test_eager_tells_what_the_observed_network_does_and_features_only_where_asked() -> None:
    engine = eager()
    with torch.inference_mode():
        logits, attention, features = (found.numpy() for found in observed()(torch.from_numpy(BATCH)))
    plain, full = engine.run(BATCH), engine.run(BATCH, features=True)
    assert plain.features is None
    assert full.features is not None
    assert (plain.attention.shape, full.features.shape) == ((3, 2, 2), (3, 16, 16, 20))
    assert plain.attention.dtype == full.features.dtype == np.float32
    np.testing.assert_allclose(plain.attention, attention, rtol=0, atol=1e-6)
    np.testing.assert_allclose(full.features, features, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(full.logits, plain.logits)
    np.testing.assert_allclose(full.features.mean((2, 3)) @ engine.head.weight.T + engine.head.bias, logits, rtol=0, atol=1e-5)


def test_in_bfloat16_the_head_is_still_the_checkpoints() -> None:
    engine, net = eager(BFLOAT16), tiny()
    assert engine.head.weight.dtype == engine.head.bias.dtype == np.float32
    np.testing.assert_array_equal(engine.head.weight, net.fc.weight.detach().numpy())
    np.testing.assert_array_equal(engine.head.bias, net.fc.bias.detach().numpy())


def test_parts_of_a_batch_are_joined() -> None:
    engine = eager()
    for features in (False, True):
        whole = engine.run(BATCH, features=features)
        parts = joined([engine.run(BATCH[i : i + 1], features=features) for i in range(3)])
        assert (parts.features is not None) == features
        for one, other in zip(parts, whole, strict=True):
            if one is not None:
                assert other is not None
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_pixels_are_normalised_as_preprocessing_does() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 32, 40, 3), dtype=np.uint8)
    engine = eager()
    by_hand = np.stack([normalise(image, SPEC) for image in pixels])
    for one, other in zip(engine.run(pixels, features=True), engine.run(by_hand, features=True), strict=True):
        assert one is not None
        np.testing.assert_array_equal(one, other)


def test_only_what_is_not_the_reference_has_its_answers() -> None:
    assert eager().reference is None
    answers = eager(BFLOAT16).reference
    assert answers is not None
    images = proof.images((32, 40))
    own, rounded = eager().run(images), eager(BFLOAT16).run(images)
    np.testing.assert_allclose(answers.logits, own.logits, rtol=0, atol=1e-6)
    np.testing.assert_allclose(answers.attention, own.attention, rtol=0, atol=1e-6)
    assert 0 < proof.deviation(rounded.logits, answers.logits) < proof.BOUNDS["bfloat16"]
    assert 0 < proof.attention_deviation(rounded.attention, answers.attention) < proof.ATTENTION_BOUNDS["bfloat16"]


def test_eager_computes_no_int8() -> None:
    with pytest.raises(EngineError, match="not int8"):
        eager(place("cpu", "int8", 1))


def test_a_closed_engine_says_so() -> None:
    engine = eager()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.run(BATCH)
    engine.close()  # twice is once


def test_torchs_own_errors_become_ours_and_the_engine_may_be_used_again() -> None:
    engine = eager()
    with pytest.raises(EngineError, match="failed on a batch of 2") as caught:
        engine.run(np.zeros((2, 5, 32, 32), np.float32))  # five channels
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert engine.run(BATCH).logits.shape == (3, 3)


def test_a_device_that_takes_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(Observed, "to", full)
    with pytest.raises(EngineError, match=r"cannot be placed on cpu \(OutOfMemoryError\)"):
        eager()


def test_closed_while_it_runs_an_engine_ends_its_run() -> None:
    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            inside.set()
            assert closed.wait(30)
            return x.mean((2, 3)), x.mean((2, 3))[:, None], x

    inside, closed = threading.Event(), threading.Event()
    engine = eager()
    assert isinstance(engine, EagerEngine)
    engine._net = Slow()  # type: ignore[assignment]
    found: list[Outputs] = []
    running = threading.Thread(target=lambda: found.append(engine.run(BATCH)))
    running.start()
    assert inside.wait(30)
    engine.close()
    closed.set()
    running.join()
    np.testing.assert_allclose(found[0].logits, BATCH.mean((2, 3)), atol=1e-5)
    with pytest.raises(EngineError, match="closed"):
        engine.run(BATCH)
