"""Shapes of tensors: the tables computed without torch against the networks themselves."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from model.errors import CheckpointCorrupt
from model.layers import make_divisible
from model.registry import VARIANTS
from model.shapes import Shapes, class_count, difference, fitting_variant, read_shapes, reduced_width, variant_shapes
from model.sknet import build


def network_shapes(name: str, num_classes: int = 1000) -> Shapes:
    with torch.device("meta"):  # shapes without memory
        return {key: tuple(tensor.shape) for key, tensor in build(name, num_classes=num_classes).state_dict().items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_shapes_are_the_networks(name: str) -> None:
    weights = {key: shape for key, shape in network_shapes(name, 7).items() if "num_batches" not in key}
    assert variant_shapes(VARIANTS[name].arguments, 7) == weights


@pytest.mark.parametrize("name", VARIANTS)
def test_the_fitting_variant_is_found_whatever_the_classes(name: str) -> None:
    # sknet50 and skresnext50_32x4d are the same tensor for tensor: the registry's order decides.
    expected = "skresnext50_32x4d" if name == "sknet50" else name
    assert fitting_variant(network_shapes(name)) == expected
    assert fitting_variant(variant_shapes(VARIANTS[name].arguments, 3)) == expected  # no batch counters


def test_nothing_fits_a_changed_network() -> None:
    shapes = variant_shapes(VARIANTS["skresnet18"].arguments, 3)
    assert fitting_variant({**shapes, "more": (1,)}) is None
    assert fitting_variant({key: shape for key, shape in shapes.items() if not key.startswith("fc.")}) is None
    assert fitting_variant({}) is None


def test_reduced_width_is_the_layers_rule() -> None:
    for channels in range(8, 2049, 8):
        for ratio, divisor in ((1 / 16, 8), (1 / 8, 16), (1 / 16, 32), (0.25, 8)):
            assert reduced_width(channels, ratio, divisor) == make_divisible(channels * ratio, divisor)


def test_difference_counts_and_names() -> None:
    needed: Shapes = {"a": (1,), "b": (2, 3), "c": (), "d": (1,), "e": (1,), "bn.num_batches_tracked": ()}
    assert difference(needed, needed) is None
    assert difference(needed, {key: shape for key, shape in needed.items() if "num_batches" not in key}) is None
    text = difference(needed, {"b": (3, 2), "f": (1,)})
    assert text == "4 missing (a, c, d, ...), 1 unexpected (f), 1 of another shape (b is 3 x 2, not 2 x 3)"


def test_class_count_is_the_classifiers_rows() -> None:
    assert class_count({"fc.weight": (7, 512)}) == 7
    assert class_count({"fc.weight": (7,)}) is None
    assert class_count({}) is None


def test_read_shapes_reads_the_header(tmp_path: Path) -> None:
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.int64)}, tmp_path / "x.safetensors")
    assert read_shapes(tmp_path / "x.safetensors") == {"a": (2, 3), "b": ()}


def test_read_shapes_refuses_what_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"a": np.zeros((200, 3), np.float32)}, file)
    whole = file.read_bytes()
    endless = struct.pack("<Q", 1 << 60) + whole[8:]  # a header said to be an exabyte long
    for data in (whole[:-1], whole[:20], whole + b"more", b"hello, I am text", b"x", endless):
        file.write_bytes(data)
        with pytest.raises(CheckpointCorrupt, match=r"x\.safetensors is damaged"):
            read_shapes(file)
