"""The records that cross from this package to its callers: frozen, plain, no tensor type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# What makes scores of logits: softmax, of a single label; the sigmoid of each, of several; none, the logits themselves.
ScoreFunction = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True, slots=True)
class Label:
    """A class: its name for people and, where there is one, its WordNet id (names are not unique, ids are)."""

    name: str
    wnid: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class of a ranking. `score` is its softmax probability, 0..1, unless another `ScoreFunction` was asked for."""

    index: int
    label: str
    score: float
    wnid: str | None = None


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image was before it was prepared. Sides in pixels, after EXIF orientation."""

    width: int
    height: int
    format: str


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """How pixels become the network's input; travels with the checkpoint.

    `size` is (height, width) in pixels; `mean` and `std` are per channel on the scale 0..1.
    """

    size: tuple[int, int] = (224, 224)
    crop_pct: float = 0.875
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Choice:
    """Something the service decided, with its reason in words."""

    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class UnitAttention:
    """What one selective-kernel unit chose for an image: means over its channels, never rescaled (section 4.4 of the paper).

    `unit` is the paper's name (SK_3_4), `module` the path of the unit in the network (layer2.3.conv2). `mean_attention` has one
    share for each kernel size, summing to 1; `attention_difference` is the last one less the first, -1..1;
    `mean_kernel_size` is the sum of each kernel size times its share.
    """

    unit: str
    module: str
    kernel_sizes: tuple[int, ...]
    channels: int
    mean_attention: tuple[float, ...]
    attention_difference: float
    mean_kernel_size: float


@dataclass(frozen=True, slots=True)
class KernelAttention:
    """Every unit in network order. `comparable_to_paper` is False where the input is split among the branches; `reason` says why.

    It is a gate that depends on the input, not on a class, and it has no place in the image.
    """

    units: tuple[UnitAttention, ...]
    comparable_to_paper: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Box:
    """A part of an image: edges in pixels of the upright original, fractions allowed."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class ScaleAttention:
    """Kernel attention and ranking with the centre of the image enlarged `scale` times; `box` is what the network saw of it."""

    scale: float
    predictions: tuple[Prediction, ...]
    units: tuple[UnitAttention, ...]
    box: Box


@dataclass(frozen=True, slots=True)
class ClassActivation:
    """Where the evidence for a class lies: the exact map of a network that ends in GAP and a linear layer.

    `values` are rows from top to bottom, raw: their mean plus `bias` is `logit` (Zhou et al., CVPR 2016, section 2). The map
    covers `box` of the upright image, each value an equal part of it.
    """

    prediction: Prediction  # the class, with its score
    logit: float
    bias: float
    values: tuple[tuple[float, ...], ...]
    box: Box


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything there is to show of why an image was ranked as it was. `scales` begins with 1.0, the ordinary pass."""

    image: ImageInfo
    predictions: tuple[Prediction, ...]
    attention: KernelAttention
    scales: tuple[ScaleAttention, ...]
    activation: ClassActivation


@dataclass(frozen=True)
class ModelInfo:
    """Everything there is to say of a loaded model."""

    variant: str
    arguments: Mapping[str, Any]  # of `model.sknet.SKNet`, with the block's name
    labels: tuple[Label, ...]
    preprocess: PreprocessSpec
    parameters: int
    gmacs: float  # at `preprocess.size`
    checkpoint: str  # the reference it was loaded from
    digest: str  # "sha256:..." of the weights file
    engine: Choice
    device: Choice
    dtype: Choice
    memory_format: Choice
    threads: Choice
    streams: Choice = Choice("1", "one call at a time")  # calls of the engine side by side
    batch_size: int = 1  # most images of one call
    deviation: float | None = None  # of the proof images' logits from the float32 reference, relative; None: it is the reference
    images_per_second: float | None = None  # of the engine alone, as measured at warm-up
    licence: str | None = None
    accuracy: Mapping[str, float] = field(default_factory=dict)  # published figures, percent
    description: str | None = None
    load_seconds: float = 0.0

    @property
    def num_classes(self) -> int:
        return len(self.labels)
