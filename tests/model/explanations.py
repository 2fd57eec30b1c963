"""Explanations made up for tests of what shows them."""

from __future__ import annotations

from collections.abc import Sequence

from model.figure import Maker
from model.types import (
    Box,
    ClassActivation,
    Explanation,
    ImageInfo,
    KernelAttention,
    Prediction,
    ScaleAttention,
    UnitAttention,
)

MAKER = Maker("sknet-made-up", "sha256:" + "0123456789abcdef" * 4)
NAMES = ("SK_2_1", "SK_2_2", "SK_3_1", "SK_3_2")


def units(first: float, *, kernel_sizes: tuple[int, ...] = (3, 5), names: Sequence[str] = NAMES) -> tuple[UnitAttention, ...]:
    """Units whose differences are `first`, and a hundredth more each."""
    made = []
    for i, name in enumerate(names):
        difference, rest = first + i / 100, 1 / len(kernel_sizes)
        shares = [rest] * len(kernel_sizes)
        shares[0], shares[-1] = rest - difference / 2, rest + difference / 2
        size = sum(k * share for k, share in zip(kernel_sizes, shares, strict=True))
        made.append(UnitAttention(name, f"layer.{i}", kernel_sizes, 64, tuple(shares), difference, size))
    return tuple(made)


def activation(
    values: Sequence[Sequence[float]] = ((1.0, -2.0), (3.0, 2.0)), box: Box | None = None, label: str = "cat"
) -> ClassActivation:
    mean = sum(map(sum, values)) / (len(values) * len(values[0]))
    box = box or Box(20.0, 0.0, 100.0, 80.0)
    return ClassActivation(Prediction(3, label, 0.75), mean - 0.5, -0.5, tuple(map(tuple, values)), box)


def explanation(
    labels: Sequence[str] = ("cat", "dog"),
    *,
    first: float = -0.05,
    kernel_sizes: tuple[int, ...] = (3, 5),
    names: Sequence[str] = NAMES,
    comparable: bool = True,
) -> Explanation:
    """Of an image of 120 x 80 pixels."""
    predictions = tuple(Prediction(i, label, 0.75 / 2**i) for i, label in enumerate(labels))
    passes = tuple(
        ScaleAttention(
            scale,
            predictions,
            units(first + 0.02 * i, kernel_sizes=kernel_sizes, names=names),
            Box(20 + 10 * i, 10 * i, 100 - 10 * i, 80 - 10 * i),
        )
        for i, scale in enumerate((1.0, 1.5, 2.0))
    )
    reason = "a test said so" if comparable else "the input is split"
    attention = KernelAttention(passes[0].units, comparable, reason)
    return Explanation(ImageInfo(120, 80, "JPEG"), predictions, attention, passes, activation(label=(*labels, "cat")[0]))
