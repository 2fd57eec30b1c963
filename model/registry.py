"""Two tables of plain data: the variants this project can build, and the published weights it knows by name.

No torch here: the command line and the settings list these names without loading a framework.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from model.errors import UnknownVariant
from model.types import PreprocessSpec

BlockName: TypeAlias = Literal["basic", "bottleneck"]

_IMAGENET_224 = PreprocessSpec(size=(224, 224), crop_pct=0.875, crop_mode="center", interpolation="bicubic")


@dataclass(frozen=True)
class Variant:
    """One architecture: constructor arguments, and its size at 1000 classes and 224x224."""

    name: str
    arguments: dict[str, Any]
    parameters: int
    gmacs: float  # multiply-accumulates of convolutions and linear layers, in 10**9
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weights:
    """Published weights: where they are and what is known about them. `sha256` is None where nobody has told us.

    `preprocess` stands in for what the repository's own configuration leaves out. `labels` names the classes.
    """

    name: str
    variant: str
    repository: str
    top1: float  # percent on ImageNet-1k validation, as published
    top5: float
    licence: str
    preprocess: PreprocessSpec = _IMAGENET_224
    labels: Literal["imagenet1k"] = "imagenet1k"  # `model.labels.imagenet1k`
    sha256: str | None = None


def _basic(*layers: int) -> dict[str, Any]:
    return {"block": "basic", "layers": layers, "split_input": True, "rd_ratio": 1 / 8, "rd_divisor": 16}


def _split_bottleneck(*layers: int, **more: Any) -> dict[str, Any]:
    return {"block": "bottleneck", "layers": layers, "split_input": True, "rd_ratio": 1 / 16, "rd_divisor": 8, **more}


def _paper(*layers: int) -> dict[str, Any]:
    # Table 1 of the paper: G=32, base width 4, d = max(C/16, 32); each branch sees all channels.
    return {
        "block": "bottleneck",
        "layers": layers,
        "cardinality": 32,
        "base_width": 4,
        "split_input": False,
        "rd_ratio": 1 / 16,
        "rd_divisor": 32,
    }


VARIANTS: MappingProxyType[str, Variant] = MappingProxyType(
    {
        v.name: v
        for v in (
            Variant("skresnet18", _basic(2, 2, 2, 2), 11_958_056, 1.814338, ("sk_resnet_18",)),
            Variant("skresnet34", _basic(3, 4, 6, 3), 22_282_376, 3.664238, ("sk_resnet_34",)),
            Variant("skresnet50", _split_bottleneck(3, 4, 6, 3), 25_803_160, 4.089422, ("sk_resnet_50",)),
            Variant(
                "skresnet50d",
                _split_bottleneck(3, 4, 6, 3, stem_type="deep", stem_width=32, avg_down=True),
                25_822_392,
                4.329063,
            ),
            Variant("skresnext50_32x4d", _paper(3, 4, 6, 3), 27_479_784, 4.462711, ("sk_resnext_50_32x4d",)),
            Variant("sknet26", _paper(2, 2, 2, 2), 16_746_408, 2.586878),
            Variant("sknet50", _paper(3, 4, 6, 3), 27_479_784, 4.462711),
            Variant("sknet101", _paper(3, 4, 23, 3), 48_736_040, 8.448725),
        )
    }
)

ALIASES: MappingProxyType[str, str] = MappingProxyType({a: v.name for v in VARIANTS.values() for a in v.aliases})

WEIGHTS: MappingProxyType[str, Weights] = MappingProxyType(
    {
        w.name: w
        for w in (
            Weights("skresnet18.ra_in1k", "skresnet18", "timm/skresnet18.ra_in1k", 73.020, 91.172, "apache-2.0"),
            Weights("skresnet34.ra_in1k", "skresnet34", "timm/skresnet34.ra_in1k", 76.956, 93.320, "apache-2.0"),
            Weights(
                "skresnext50_32x4d.ra_in1k",
                "skresnext50_32x4d",
                "timm/skresnext50_32x4d.ra_in1k",
                80.168,
                94.644,
                "apache-2.0",
            ),
        )
    }
)


def variant(name: str) -> Variant:
    """Look a variant up by name or alias.

    Raises:
        UnknownVariant: no such name; the text lists those there are.
    """
    found = VARIANTS.get(ALIASES.get(name, name))
    if found is None:
        raise UnknownVariant("variant", name, (*VARIANTS, *ALIASES))
    return found
