"""`model.registry`: the tables agree with each other and with the networks they name."""

from __future__ import annotations

import re

import pytest
import torch

from model.complexity import count_parameters
from model.errors import ModelError, UnknownVariant
from model.registry import ALIASES, VARIANTS, WEIGHTS, variant
from model.sknet import SKNet, build

# Spelled out here a second time on purpose: a slip in the registry must not correct its own test.
FACTS = {
    "skresnet18": (11_958_056, 1.814338, 226),
    "skresnet34": (22_282_376, 3.664238, 426),
    "skresnet50": (25_803_160, 4.089422, 528),
    "skresnet50d": (25_822_392, 4.329063, 540),
    "skresnext50_32x4d": (27_479_784, 4.462711, 528),
    "sknet26": (16_746_408, 2.586878, 280),
    "sknet50": (27_479_784, 4.462711, 528),
    "sknet101": (48_736_040, 8.448725, 1055),
}


def shape_only(name: str) -> SKNet:
    with torch.device("meta"):
        return build(name)


def test_there_are_exactly_the_eight_variants() -> None:
    assert list(VARIANTS) == list(FACTS)
    assert {name: (v.parameters, v.gmacs) for name, v in VARIANTS.items()} == {n: f[:2] for n, f in FACTS.items()}


@pytest.mark.parametrize("name", FACTS)
def test_each_variant_has_its_parameters_and_tensors(name: str) -> None:
    net = shape_only(name)
    parameters, _, tensors = FACTS[name]
    assert count_parameters(net) == parameters
    assert len(net.state_dict()) == tensors


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("sk_resnet_18", "skresnet18"),
        ("sk_resnet_34", "skresnet34"),
        ("sk_resnet_50", "skresnet50"),
        ("sk_resnext_50_32x4d", "skresnext50_32x4d"),
    ],
)
def test_an_alias_means_its_variant(alias: str, name: str) -> None:
    assert variant(alias) is variant(name) is VARIANTS[name]
    with torch.device("meta"):
        assert count_parameters(build(alias)) == VARIANTS[name].parameters


def test_no_alias_hides_a_variant() -> None:
    assert len(ALIASES) == 4
    assert not set(ALIASES) & set(VARIANTS)


@pytest.mark.parametrize("name", ["resnet50", "", "SKNET50", "sknet50 "])
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownVariant) as caught:
        variant(name)
    assert repr(name) in str(caught.value)
    for known in (*VARIANTS, *ALIASES):
        assert known in str(caught.value)
    assert caught.value.name == name
    assert isinstance(caught.value, ModelError)
    with pytest.raises(UnknownVariant):
        build(name)


@pytest.mark.parametrize(
    ("name", "top1", "top5"),
    [
        ("skresnet18.ra_in1k", 73.020, 91.172),
        ("skresnet34.ra_in1k", 76.956, 93.320),
        ("skresnext50_32x4d.ra_in1k", 80.168, 94.644),
    ],
)
def test_published_weights_carry_what_was_published(name: str, top1: float, top5: float) -> None:
    weights = WEIGHTS[name]
    assert (weights.top1, weights.top5, weights.licence) == (top1, top5, "apache-2.0")
    assert weights.repository == f"timm/{name}"
    assert weights.variant == name.partition(".")[0]
    assert weights.variant in VARIANTS
    # A hash nobody has told us stays None; one that is known is a whole one.
    assert weights.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", weights.sha256)


def test_there_are_no_other_published_weights() -> None:
    assert len(WEIGHTS) == 3


def test_the_tables_cannot_be_changed() -> None:
    for table in (VARIANTS, ALIASES, WEIGHTS):
        with pytest.raises(TypeError, match="does not support item assignment"):
            table["mine"] = None  # type: ignore[index]
