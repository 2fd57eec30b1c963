"""`model.explain`: names, signs and sums of kernel attention, and class activation maps that add up to the logit."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model import engines
from model.device import place
from model.engines import proof
from model.engines.base import Outputs, Plan
from model.explain import COMPARABLE, SCALES, SPLIT, Unit, class_activation, kernel_attention, units_of
from model.graphs import Graph
from model.registry import VARIANTS
from model.sknet import BLOCKS, SKNet, units
from model.types import PreprocessSpec
from tests.model.small import tiny

SPEC = PreprocessSpec(size=(32, 40))
ODD: dict[str, dict[str, Any]] = {
    "groups": {"block": "bottleneck", "layers": [1, 2], "cardinality": 32, "base_width": 4},
    "a width that is rounded down": {"block": "bottleneck", "layers": [2, 1], "channels": (48, 56), "base_width": 26},
    "rounded, then in groups": {
        "block": "bottleneck",
        "layers": [1, 1],
        "channels": (40, 72),
        "cardinality": 3,
        "base_width": 14,
    },
    "more widths than stages": {"block": "basic", "layers": [1, 3], "channels": (8, 24, 16, 32, 64)},
    "five stages": {"block": "basic", "layers": [1, 1, 1, 1, 2], "channels": (8, 8, 16, 16, 24)},
    "one stage": {"block": "bottleneck", "layers": [3]},
    "lists, as a card has them": {"block": "bottleneck", "layers": [1, 1], "channels": [8, 16], "kernel_sizes": [3, 5, 7]},
    "split": {"block": "basic", "layers": [2, 2, 2, 2], "split_input": True, "num_classes": 7},
}


def built(arguments: dict[str, Any]) -> tuple[Unit, ...]:
    """What the network itself says, without memory for its weights."""
    given = {key: value for key, value in arguments.items() if key not in ("block", "layers")}
    with torch.device("meta"):
        net = SKNet(BLOCKS[arguments["block"]], arguments["layers"], **given)
    return tuple(Unit(name, module, unit.out_channels) for name, module, unit in units(net))


@pytest.mark.parametrize("name", VARIANTS)
def test_units_are_the_networks_own(name: str) -> None:
    arguments = dict(VARIANTS[name].arguments)
    found = units_of(arguments)
    assert found == built(arguments)
    assert len(found) == sum(arguments["layers"])


@pytest.mark.parametrize("arguments", ODD.values(), ids=ODD)
def test_units_of_unusual_networks(arguments: dict[str, Any]) -> None:
    assert units_of(arguments) == built(arguments)


def test_units_have_the_papers_names() -> None:
    named = {unit.name: unit.module for unit in units_of(VARIANTS["sknet50"].arguments)}
    assert {name: named[name] for name in ("SK_2_3", "SK_3_4", "SK_4_6", "SK_5_3")} == {
        "SK_2_3": "layer1.2.conv2",
        "SK_3_4": "layer2.3.conv2",
        "SK_4_6": "layer3.5.conv2",
        "SK_5_3": "layer4.2.conv2",
    }
    assert units_of(VARIANTS["skresnet18"].arguments)[0].module == "layer1.0.conv1"


TWO = {"block": "basic", "layers": [1, 1], "channels": (8, 16)}


def test_the_sign_is_the_larger_kernels() -> None:
    means = np.array([[0.25, 0.75], [0.875, 0.125]], np.float32)
    told = kernel_attention(means, units_of(TWO), TWO)
    first, second = told.units
    assert (first.unit, first.module, first.channels, first.kernel_sizes) == ("SK_2_1", "layer1.0.conv1", 8, (3, 5))
    assert (first.mean_attention, first.attention_difference, first.mean_kernel_size) == ((0.25, 0.75), 0.5, 4.5)
    assert (second.unit, second.module, second.channels) == ("SK_3_1", "layer2.0.conv1", 16)
    assert (second.mean_attention, second.attention_difference, second.mean_kernel_size) == ((0.875, 0.125), -0.75, 3.25)
    assert (told.comparable_to_paper, told.reason) == (True, COMPARABLE)
    assert all(type(value) is float for unit in told.units for value in (*unit.mean_attention, unit.attention_difference))


def test_of_three_kernels_the_difference_is_last_less_first_and_the_mean_size_tells_the_rest() -> None:
    arguments = {**TWO, "kernel_sizes": [3, 5, 9]}
    means = np.array([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75]], np.float32)
    first, second = kernel_attention(means, units_of(arguments), arguments).units
    assert first.kernel_sizes == (3, 5, 9)
    assert (first.attention_difference, first.mean_kernel_size) == (0, 0.25 * 3 + 0.5 * 5 + 0.25 * 9)
    assert (second.attention_difference, second.mean_kernel_size) == (0.625, 0.125 * 3 + 0.125 * 5 + 0.75 * 9)


@pytest.mark.parametrize("name", VARIANTS)
def test_only_variants_whose_branches_see_the_same_are_comparable(name: str) -> None:
    arguments = VARIANTS[name].arguments
    found = units_of(arguments)
    told = kernel_attention(np.full((len(found), 2), 0.5, np.float32), found, arguments)
    assert told.comparable_to_paper is not bool(arguments.get("split_input", False))
    assert told.reason == (COMPARABLE if told.comparable_to_paper else SPLIT)
    assert {VARIANTS[n].arguments.get("split_input", False) for n in VARIANTS} == {True, False}  # there are both kinds


def test_values_are_never_rescaled() -> None:
    means = np.array([[0.5003, 0.4997], [0.499, 0.501]], np.float32)
    told = kernel_attention(means, units_of(TWO), TWO)
    assert [unit.mean_attention for unit in told.units] == [tuple(row) for row in means.tolist()]
    assert told.units[0].attention_difference == pytest.approx(-0.0006, abs=1e-7)


@pytest.mark.parametrize("shape", [(1, 2), (3, 2), (2, 3)])
def test_means_of_other_units_or_kernels_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="zip"):
        kernel_attention(np.zeros(shape, np.float32), units_of(TWO), TWO)


def test_the_scales_are_the_papers() -> None:
    assert SCALES == (1.0, 1.5, 2.0)


# --- class activation ----------------------------------------------------------------------------------------------------


def test_each_value_is_where_its_features_are() -> None:
    features = np.zeros((2, 3, 4), np.float32)
    features[0, 0, 3], features[1, 2, 0], features[:, 1, 1] = 5, 7, (1, 1)
    assert class_activation(features, np.array([2, -1], np.float32)) == (
        (0.0, 0.0, 0.0, 10.0),
        (0.0, 1.0, 0.0, 0.0),
        (-7.0, 0.0, 0.0, 0.0),
    )


def engine_outputs() -> tuple[Outputs, Any, Tensor]:
    """An engine's outputs for the images of the proof, the engine, and the last stage's output by a hook of its own."""

    def no_graph() -> Graph:
        raise AssertionError("eager needs no graph")

    before = torch.get_num_threads()
    try:
        engine = engines.make("eager", Plan(tiny, no_graph, SPEC, place("cpu", "float32", 1)))
        seen: list[Tensor] = []
        engine._net.net.layers[-1].register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))  # type: ignore[attr-defined]
        found = engine.run(proof.images(SPEC.size), features=True)
    finally:
        torch.set_num_threads(before)  # engines set them for the whole process
    (features,) = seen
    return found, engine, features


def test_the_mean_of_the_map_and_the_bias_are_the_logit_of_every_class() -> None:
    found, engine, features = engine_outputs()
    assert found.features is not None
    for i in range(proof.COUNT):
        for index in range(3):
            values = np.array(class_activation(found.features[i], engine.head.weight[index]))
            logit = float(found.logits[i, index])
            assert values.mean() + float(engine.head.bias[index]) == pytest.approx(logit, rel=1e-5, abs=1e-6)
            direct = torch.einsum("f,fhw->hw", tiny().fc.weight[index].double(), features[i].double()).detach().numpy()
            np.testing.assert_allclose(values, direct, rtol=0, atol=1e-6)
            assert values.std() > 1e-3  # something to be in the wrong place
    maps = [class_activation(found.features[0], engine.head.weight[index]) for index in range(3)]
    assert len(set(maps)) == 3


def test_the_map_moves_with_the_picture() -> None:
    """A patch in one corner of a grey picture changes that corner of the map and not the opposite one."""
    _, engine, _ = engine_outputs()
    grey = np.full((1, *SPEC.size, 3), 128, np.uint8)
    plain = engine.run(grey, features=True)
    patched = grey.copy()
    patched[0, :8, -8:] = (255, 0, 60)  # top right
    found = engine.run(patched, features=True)
    change = np.abs(found.features - plain.features)[0].sum(0)  # attention is global: a little changes everywhere
    height, width = change.shape
    rows, columns = height // 4, width // 5
    assert change[:rows, -columns:].mean() > 3 * change[-rows:, :columns].mean()
    row, column = np.unravel_index(int(change.argmax()), change.shape)
    assert row < height / 2 < width / 2 < column


def test_it_needs_no_torch() -> None:
    program = "import sys, model.explain, model.crops; print('torch' in sys.modules, 'torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]
