"""`model.engines.proof`: the images never change, and what is another network is told apart."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from model.checkpoint import build_network, resolve
from model.engines import proof
from model.errors import CheckpointCorrupt
from model.types import PreprocessSpec
from tests.model.small import observed, tiny

SPEC = PreprocessSpec(size=(32, 40))


def test_the_images_are_the_same_everywhere() -> None:
    images = proof.images((32, 40))
    assert images.shape == (proof.COUNT, 32, 40, 3)
    assert images.dtype == np.uint8
    assert images.std(axis=(1, 2)).min() > 10  # something to see in every channel of every image
    # Stored graphs hold answers to these: other pictures are another `model.graphs.FORMAT`.
    assert images.mean((1, 2)).round().astype(int).tolist() == [
        [128, 178, 129],
        [128, 131, 123],
        [138, 125, 128],
        [144, 124, 124],
    ]


def test_a_deviation_is_relative() -> None:
    reference = np.array([[3.0, 4.0]], np.float32)
    assert proof.deviation(reference, reference) == 0
    assert proof.deviation(reference * 1.01, reference) == pytest.approx(0.01, rel=1e-4)
    assert proof.deviation(np.array([[3.0, np.nan]], np.float32), reference) == float("inf")
    assert proof.deviation(reference, np.zeros((1, 2), np.float32)) > 1e6


def test_another_network_is_out_of_every_bound() -> None:
    net = tiny()
    answers = proof.reference(observed(net), SPEC)
    assert (answers.logits.shape, answers.attention.shape) == ((proof.COUNT, 3), (proof.COUNT, 2, 2))
    assert answers.features is None
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.flip(0))
    other = proof.reference(observed(net), SPEC)
    assert proof.deviation(other.logits, answers.logits) > max(proof.BOUNDS.values())


def test_answers_that_are_no_numbers() -> None:
    net = tiny()
    with torch.no_grad():
        net.fc.bias.fill_(float("nan"))
    with pytest.raises(CheckpointCorrupt, match="the weights hold NaN or infinity"):
        proof.reference(observed(net), SPEC)


def test_an_attention_deviation_is_the_largest_difference() -> None:
    reference = np.full((4, 3, 2), 0.5, np.float32)
    assert proof.attention_deviation(reference, reference) == 0
    other = reference.copy()
    other[2, 1] = (0.25, 0.75)
    assert proof.attention_deviation(other, reference) == 0.25
    other[0, 0, 0] = np.nan
    assert proof.attention_deviation(other, reference) == float("inf")
    for shape in ((4, 2, 2), (4, 3, 3), (3, 3, 2)):  # a unit, a kernel or an image less or more
        assert proof.attention_deviation(np.full(shape, 0.5, np.float32), reference) == float("inf")


def test_units_and_kernels_in_another_order_are_out_of_every_bound() -> None:
    net, spec = build_network(checkpoint := resolve("bundled:cifar10")), checkpoint.preprocess
    attention = proof.reference(observed(net), spec).attention
    for wrong in (attention[:, ::-1], np.roll(attention, 1, 1), attention[..., ::-1]):
        assert proof.attention_deviation(wrong, attention) > 3 * max(proof.ATTENTION_BOUNDS.values())


def test_the_speed_counts_images_of_every_stream() -> None:
    shapes: set[tuple[int, ...]] = set()

    def run(batch: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        shapes.add(batch.shape)
        time.sleep(0.02)

    speed = proof.speed(run, (8, 10), streams=3, batch_size=5)
    assert shapes == {(5, 8, 10, 3)}
    assert 5 / 0.5 < speed <= 3 * 5 / 0.02


def test_a_network_that_sees_nothing_is_told() -> None:
    rows = np.zeros((proof.COUNT, 3), np.float32)
    assert not proof.differs(rows)
    assert not proof.differs(rows + np.array([1, 2, 3], np.float32))  # the classes may differ: the images do not
    rows[2, 1] = 1e-6
    assert proof.differs(rows)
