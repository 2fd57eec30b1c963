"""From what an engine tells beside its logits to kernel attention and class activation. Numpy only: no network, no pixels.

Names, signs and numbering are those of section 4.4 and figures 3 and 4 of Li et al., "Selective Kernel Networks", CVPR 2019.
Values are means over channels as the network has them, never rescaled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.types import KernelAttention, UnitAttention

SCALES = (1.0, 1.5, 2.0)  # how many times the paper enlarges the centre of an image
COMPARABLE = "every branch sees the whole input, as in the paper"
SPLIT = (
    "the input is split: each branch sees other channels, so a difference mixes kernel size with channel group and does not "
    "read as in the paper"
)

_CHANNELS = (64, 128, 256, 512)
_EXPANSION_UNIT = {"basic": "conv1", "bottleneck": "conv2"}  # which module of the block is the selective-kernel unit


@dataclass(frozen=True, slots=True)
class Unit:
    """One selective-kernel unit: the paper's name, its path in the network, and its channels."""

    name: str
    module: str
    channels: int


def units_of(arguments: Mapping[str, Any]) -> tuple[Unit, ...]:
    """The units of `SKNet(**arguments)` in network order, without building it; as `model.sknet.units`, which needs torch.

    The unit of block i (from 1) of stage s (from 1) is SK_{s+1}_{i}: `layer2.3` holds SK_3_4.
    """
    block = arguments["block"]
    width = arguments.get("base_width", 64) / 64
    found = []
    for stage, (planes, depth) in enumerate(
        zip(arguments.get("channels", _CHANNELS), arguments["layers"], strict=False), start=1
    ):
        channels = planes if block == "basic" else math.floor(planes * width) * arguments.get("cardinality", 1)
        for i in range(depth):
            found.append(Unit(f"SK_{stage + 1}_{i + 1}", f"layer{stage}.{i}.{_EXPANSION_UNIT[block]}", channels))
    return tuple(found)


def kernel_attention(means: npt.NDArray[np.float32], units: Sequence[Unit], arguments: Mapping[str, Any]) -> KernelAttention:
    """What each unit chose, from the mean over its channels of each kernel's share: `means` is (U, M)."""
    sizes = tuple(int(size) for size in arguments.get("kernel_sizes", (3, 5)))
    split = bool(arguments.get("split_input", False))
    told = tuple(_told(unit, sizes, row) for unit, row in zip(units, means.tolist(), strict=True))
    return KernelAttention(told, not split, SPLIT if split else COMPARABLE)


def _told(unit: Unit, sizes: tuple[int, ...], row: Sequence[float]) -> UnitAttention:
    return UnitAttention(
        unit=unit.name,
        module=unit.module,
        kernel_sizes=sizes,
        channels=unit.channels,
        mean_attention=tuple(row),
        attention_difference=row[-1] - row[0],
        mean_kernel_size=sum(size * share for size, share in zip(sizes, row, strict=True)),
    )


def class_activation(features: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]) -> tuple[tuple[float, ...], ...]:
    """The exact class activation map: last features (F, H', W') and one class's row of the classifier (F,) -> H' rows of W'.

    Pooling and the classifier are linear, so the mean of the map plus the class's bias is its logit (Zhou et al., "Learning Deep
    Features for Discriminative Localization", CVPR 2016, section 2).
    """
    values = np.tensordot(weight.astype(np.float64), features.astype(np.float64), 1)  # (H', W')
    return tuple(tuple(row) for row in values.tolist())
