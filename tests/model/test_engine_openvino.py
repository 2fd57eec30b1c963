"""`model.engines.openvino`: the network's own answers, from an exported graph, in streams or alone."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import engines, export
from model.checkpoint import Checkpoint, resolve
from model.device import place
from model.engines import proof, runtime
from model.engines.base import Engine, Outputs, Plan
from model.engines.openvino import computes_bfloat16
from model.engines.outputs import outputs
from model.errors import EngineError, GraphError
from model.graphs import Graph
from model.preprocess import normalise
from model.sknet import SKNet
from tests.model.small import observed, tiny, write

SPEC = {"size": [32, 40]}
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), dtype=np.uint8)


def no_network() -> SKNet:
    raise AssertionError("this engine needs no network")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(write(tmp_path_factory.mktemp("tiny"), preprocess=SPEC)))


@pytest.fixture(scope="module")
def graph(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return export.export(checkpoint, tmp_path_factory.mktemp("graphs"))


def engine_of(checkpoint: Checkpoint, graph: Graph, dtype: str = "float32", threads: int = 2, streams: int = 0) -> Engine:
    plan = Plan(no_network, lambda: graph, checkpoint.preprocess, place("cpu", dtype, threads), streams)
    return engines.make("openvino", plan)


def expected(checkpoint: Checkpoint) -> Outputs:
    arrays = np.stack([normalise(image, checkpoint.preprocess) for image in PIXELS])
    with torch.inference_mode():
        return outputs(observed()(torch.from_numpy(arrays)), features=True)


def assert_equal(found: Outputs, wanted: Outputs, *, features: bool = False) -> None:
    assert (found.features is not None) == features
    np.testing.assert_allclose(found.logits, wanted.logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.attention, wanted.attention, rtol=0, atol=1e-6)
    if found.features is not None:
        assert wanted.features is not None
        np.testing.assert_allclose(found.features, wanted.features, rtol=0, atol=1e-5)
    assert all(each.dtype == np.float32 and each.flags.owndata for each in found if each is not None)


@pytest.mark.parametrize("alone", [False, True])
def test_the_networks_own_outputs_from_pixels_and_from_normalised_input(
    checkpoint: Checkpoint, graph: Graph, alone: bool
) -> None:
    engine = engine_of(checkpoint, graph)
    wanted = expected(checkpoint)
    assert np.abs(wanted.logits).max() > 0.01
    assert np.ptp(wanted.attention) > 0.01
    arrays = np.stack([normalise(image, checkpoint.preprocess) for image in PIXELS])
    for features in (False, True):
        assert_equal(engine.run(PIXELS, alone=alone, features=features), wanted, features=features)
        assert_equal(engine.run(arrays, alone=alone, features=features), wanted, features=features)


def test_the_graph_names_its_outputs_and_brings_the_classifier(checkpoint: Checkpoint, graph: Graph) -> None:
    model = runtime.core().read_model(graph.xml)
    assert [output.any_name for output in model.outputs] == ["logits", "attention", "features"]
    head, net = engine_of(checkpoint, graph).head, tiny()
    np.testing.assert_array_equal(head.weight, net.fc.weight.detach().numpy())
    np.testing.assert_array_equal(head.bias, net.fc.bias.detach().numpy())


def test_what_it_says_of_itself(checkpoint: Checkpoint, graph: Graph) -> None:
    engine = engine_of(checkpoint, graph, threads=3)
    assert (engine.streams.value, engine.batch_size, engine.placement.threads.value) == ("3", 1, "3")
    assert engine.parameters == sum(p.numel() for p in tiny().parameters())
    assert engine.gmacs == graph.gmacs > 0
    assert engine.reference is not None
    assert_equal(engine.run(proof.images((32, 40))), engine.reference)
    asked = engine_of(checkpoint, graph, threads=3, streams=2)
    assert (asked.streams.value, asked.streams.reason) == ("2", "asked for")
    for threads, reason in ((1, "asked for 8, but there is only 1 thread"), (2, "asked for 8, but there are only 2 threads")):
        fewer = engine_of(checkpoint, graph, threads=threads, streams=8).streams
        assert (fewer.value, fewer.reason) == (str(threads), reason)


def test_bfloat16_is_near(checkpoint: Checkpoint, graph: Graph) -> None:
    engine = engine_of(checkpoint, graph, "bfloat16")
    assert engine.reference is not None
    found = engine.run(proof.images((32, 40)))
    deviation = proof.deviation(found.logits, engine.reference.logits)
    assert deviation < proof.BOUNDS["bfloat16"]
    apart = proof.attention_deviation(found.attention, engine.reference.attention)
    assert apart < proof.ATTENTION_BOUNDS["bfloat16"]
    assert (deviation > 1e-5) == (apart > 1e-5) == computes_bfloat16()  # without the hardware it is computed as float32


def test_many_threads_at_once_get_what_one_gets(checkpoint: Checkpoint, graph: Graph) -> None:
    engine = engine_of(checkpoint, graph)
    images = np.random.default_rng(1).integers(0, 64, (64, 1, 32, 40, 3), dtype=np.uint8)
    images += np.arange(0, 192, 3, dtype=np.uint8).reshape(64, 1, 1, 1, 1)  # each of another brightness
    one_by_one = [engine.run(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: engine.run(images[i], alone=i % 5 == 0), range(64)))
    for found, wanted in zip(together, one_by_one, strict=True):
        assert_equal(found, wanted)
    assert len({found.logits.tobytes() for found in one_by_one}) == 64
    assert len({found.attention.tobytes() for found in one_by_one}) == 64


def test_what_it_gave_stays(checkpoint: Checkpoint, graph: Graph) -> None:
    engine = engine_of(checkpoint, graph, threads=1)
    first = engine.run(PIXELS[:1], features=True)
    kept = deepcopy(first)
    engine.run(PIXELS[1:2], features=True)
    for before, after in zip(kept, first, strict=True):
        assert after is not None
        np.testing.assert_array_equal(after, before)


def test_a_wrong_shape_is_the_engines_error_and_it_goes_on(checkpoint: Checkpoint, graph: Graph) -> None:
    engine = engine_of(checkpoint, graph)
    with pytest.raises(EngineError, match="failed on a batch of 2"):
        engine.run(np.zeros((2, 8, 8, 3), np.uint8))
    assert_equal(engine.run(PIXELS), expected(checkpoint))


def test_a_closed_engine_says_so(checkpoint: Checkpoint, graph: Graph) -> None:
    engine = engine_of(checkpoint, graph)
    engine.close()
    for alone in (False, True):
        with pytest.raises(EngineError, match="the engine is closed"):
            engine.run(PIXELS, alone=alone)
    engine.close()


def test_only_the_processor(checkpoint: Checkpoint, graph: Graph) -> None:
    placement = place("cpu", "float32", 1)
    elsewhere = replace(placement, device=replace(placement.device, value="cuda:0"))
    with pytest.raises(EngineError, match="runs on the cpu, not on cuda:0"):
        engines.make("openvino", Plan(no_network, lambda: graph, checkpoint.preprocess, elsewhere))


def test_a_graph_that_is_none(checkpoint: Checkpoint, graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "graph.xml").write_text("<net/>")
    with pytest.raises(GraphError, match="cannot compile the graph"):
        engine_of(checkpoint, replace(graph, path=tmp_path))


def test_openvino_comes_without_its_telemetry() -> None:
    program = (
        "import sys; from model.engines.runtime import openvino; openvino();"
        "print(sys.modules['openvino_telemetry'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["None", "False"]


def test_openvino_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match="OpenVINO cannot be loaded here"):
        runtime.openvino()
    monkeypatch.setattr(runtime, "openvino_version", lambda: None)
    with pytest.raises(EngineError, match="OpenVINO is not installed here"):
        runtime.openvino()


def test_signals_are_survived_after_engines_came_and_went(checkpoint: Checkpoint, graph: Graph) -> None:
    """Each `openvino.Core` left the thread that made it a signal stack whose memory was gone."""
    program = """
import os, signal, sys
from pathlib import Path
from model.engines.runtime import core, openvino
model = Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: print("survived"))
for _ in range(3):
    compiled = core().compile_model(core().read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    del compiled
    os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(graph.xml)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["survived"] * 3)
