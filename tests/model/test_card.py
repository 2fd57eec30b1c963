"""Configurations: the hub's config.json and the package's own cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.card import Description, describe_variant, read_card, read_config
from model.errors import CheckpointCorrupt, CheckpointNotFound, UnknownVariant
from model.registry import VARIANTS
from model.types import Label, PreprocessSpec

PUBLISHED = {  # the layout of the public repositories
    "architecture": "skresnet18",
    "num_classes": 1000,
    "num_features": 512,
    "pretrained_cfg": {
        "tag": "ra_in1k",
        "num_classes": 1000,
        "input_size": [3, 224, 224],
        "pool_size": [7, 7],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
    },
}
CARD = {
    "name": "tiny",
    "variant": "sknet-tiny",
    "arguments": {"block": "basic", "layers": [1, 1], "channels": [8, 16], "num_classes": 2, "stem_type": "small"},
    "preprocess": {
        "size": [48, 64],
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "interpolation": "bilinear",
        "mean": [0.1, 0.2, 0.3],
        "std": [1, 1, 0.5],
    },
    "labels": ["ant", "bee"],
    "accuracy": {"top1": 91.5},
    "licence": "MIT",
    "description": "two insects",
    "training": {"seed": 3},
}


def config(tmp_path: Path, content: object) -> Description:
    (tmp_path / "config.json").write_text(json.dumps(content))
    return read_config(tmp_path / "config.json")


def card(tmp_path: Path, content: object) -> Description:
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    return read_card(tmp_path / "tiny.json")


def test_a_published_configuration(tmp_path: Path) -> None:
    found = config(tmp_path, PUBLISHED)
    assert found.variant == "skresnet18"
    assert found.arguments == {
        **VARIANTS["skresnet18"].arguments,
        "num_classes": 1000,
        "kernel_sizes": (3, 5),
        "base_width": 64,
        "cardinality": 1,
    }
    assert found.preprocess == PreprocessSpec()
    assert (found.labels, found.licence) == (None, "apache-2.0")


@pytest.mark.parametrize("name", ["sk_resnext_50_32x4d", "skresnext50_32x4d.ra_in1k"])
def test_aliases_and_tagged_architectures(tmp_path: Path, name: str) -> None:
    assert config(tmp_path, {"architecture": name}).variant == "skresnext50_32x4d"


def test_the_top_level_wins(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        {
            "architecture": "skresnet18",
            "num_classes": 2,
            "label_names": ["ant", "bee"],
            "pretrained_cfg": {"num_classes": 1000, "label_names": ["x"] * 1000, "license": "mit"},
        },
    )
    assert found.arguments["num_classes"] == 2
    assert found.labels == (Label("ant"), Label("bee"))


def test_the_inner_configuration_counts_where_the_outer_is_silent(tmp_path: Path) -> None:
    inner = {"num_classes": 2, "label_names": {"0": "ant", "1": "bee"}}
    found = config(tmp_path, {"architecture": "skresnet18", "num_classes": None, "pretrained_cfg": inner})
    assert found.arguments["num_classes"] == 2
    assert found.labels == (Label("ant"), Label("bee"))


def test_wordnet_ids_are_named_by_the_descriptions(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        {
            "architecture": "skresnet18",
            "num_classes": 2,
            "label_names": ["n01440764", "n02219486"],
            "label_descriptions": {"n02219486": "ant, emmet, pismire"},
        },
    )
    assert found.labels == (Label("tench, Tinca tinca", "n01440764"), Label("ant, emmet, pismire", "n02219486"))


def test_preprocessing_travels(tmp_path: Path) -> None:
    inner = {
        "input_size": [3, 160, 192],
        "crop_pct": 1,
        "crop_mode": "border",
        "interpolation": "bilinear",
        "mean": [0, 0.5, 1],
        "std": [1, 1, 1],
    }
    found = config(tmp_path, {"architecture": "skresnet18", "pretrained_cfg": inner})
    assert found.preprocess == PreprocessSpec((160, 192), 1, "border", "bilinear", (0, 0.5, 1), (1, 1, 1))


def test_timms_names_of_arguments(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        {
            "architecture": "skresnet50",
            "model_args": {
                "in_chans": 3,
                "num_classes": 5,
                "global_pool": "avg",
                "stem_type": "",
                "stem_width": 32,
                "drop_path_rate": 0.1,
                "zero_init_last": False,
                "block_args": {"sk_kwargs": {"kernel_size": [3, 5, 7], "split_input": False, "rd_divisor": 16}},
            },
        },
    )
    assert found.arguments["kernel_sizes"] == (3, 5, 7)
    assert (found.arguments["split_input"], found.arguments["rd_divisor"], found.arguments["rd_ratio"]) == (False, 16, 1 / 16)
    assert (found.arguments["stem_type"], found.arguments["stem_width"]) == (None, 32)
    assert (found.arguments["in_channels"], found.arguments["num_classes"]) == (3, 5)
    assert set(found.arguments).isdisjoint({"in_chans", "global_pool", "drop_path_rate", "zero_init_last", "block_args"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": None}, "has no 'architecture'"),
        ({"architectures": ["ResNet"], "architecture": 3}, "has no 'architecture'"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"num_classes": "ten"}, "num_classes='ten'"),
        ({"num_classes": True}, "num_classes=True"),
        ({"label_names": "ant"}, "labels must be a list"),
        ({"global_pool": "max"}, "global_pool='max'"),
        ({"model_args": {"global_pool": "max"}}, "global_pool='max'"),
        ({"model_args": {"in_chans": 1}}, "takes 1 channels"),
        ({"model_args": {"attn_layer": "se"}}, "model_args has attn_layer, which no SKNet takes; allowed are layers"),
        ({"model_args": {"block_args": {"attn_layer": "se"}}}, "model_args has attn_layer"),
        ({"model_args": {"block_args": {"sk_kwargs": {"act": 1}}}}, "model_args has act"),
        ({"model_args": []}, "model_args must be a JSON object"),
        ({"pretrained_cfg": 5}, "pretrained_cfg must be a JSON object"),
        ({"pretrained_cfg": {"crop_pct": "big"}}, "crop_pct is 'big'"),
        ({"pretrained_cfg": {"crop_pct": 0}}, "crop_pct"),
        ({"pretrained_cfg": {"crop_mode": "odd"}}, "crop_mode 'odd' is unknown"),
        ({"pretrained_cfg": {"interpolation": "none"}}, "interpolation 'none' is unknown"),
        ({"pretrained_cfg": {"input_size": [3, 0, 5]}}, "size"),
        ({"pretrained_cfg": {"input_size": "large"}}, "input size is 'large'"),
        ({"pretrained_cfg": {"mean": [1, 2]}}, "mean is"),
        ({"pretrained_cfg": {"std": [1, 1, 0]}}, "std"),
        ({"pretrained_cfg": {"std": [1, 1, None]}}, "std is None"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointCorrupt) as caught:
        config(tmp_path, {**PUBLISHED, **change})
    assert says in str(caught.value)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_an_architecture_of_another_family(tmp_path: Path) -> None:
    with pytest.raises(UnknownVariant, match="unknown variant 'resnet50': known are skresnet18"):
        config(tmp_path, {"architecture": "resnet50"})


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b'"text"'])
def test_a_configuration_that_is_no_json_object(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(CheckpointCorrupt, match=r"config\.json"):
        read_config(tmp_path / "config.json")


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="cannot be read"):
        read_config(tmp_path / "config.json")


def test_a_card_of_a_network_outside_the_registry(tmp_path: Path) -> None:
    found = card(tmp_path, CARD)
    assert found == Description(
        variant="sknet-tiny",
        arguments={
            "block": "basic",
            "layers": (1, 1),
            "channels": (8, 16),
            "num_classes": 2,
            "stem_type": "small",
            "kernel_sizes": (3, 5),
            "base_width": 64,
            "cardinality": 1,
        },
        preprocess=PreprocessSpec((48, 64), 1.0, "squash", "bilinear", (0.1, 0.2, 0.3), (1, 1, 0.5)),
        labels=(Label("ant"), Label("bee")),
        licence="MIT",
        accuracy={"top1": 91.5},
        description="two insects",
        card=CARD,
    )


def test_a_card_of_a_registry_variant_says_only_what_differs(tmp_path: Path) -> None:
    found = card(tmp_path, {"variant": "skresnet34", "arguments": {"num_classes": 2}})
    assert found.arguments["layers"] == (3, 4, 6, 3)
    assert found.arguments["num_classes"] == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"variant": None}, "has no 'variant'"),
        ({"arguments": None}, "arguments must be a JSON object"),
        ({"arguments": {"layers": [1]}}, "arguments has no 'block'"),
        ({"arguments": {"block": "basic"}}, "arguments has no 'layers'"),
        ({"arguments": {"block": "basic", "layers": [1], "depth": 3}}, "arguments has depth"),
        ({"preprocess": {"size": 3.5}}, "input size is 3.5"),
        ({"labels": [1, 2]}, "label of class 0"),
        ({"accuracy": 91}, "accuracy must be a JSON object"),
        ({"accuracy": {"top1": "high"}}, "accuracy.top1 is 'high', where a number belongs"),
        ({"accuracy": {"top1": float("nan")}}, "accuracy.top1 is nan"),
        ({"preprocess": {"crop_pct": 10**400}}, "crop_pct is 1000"),
    ],
)
def test_a_card_that_makes_no_sense(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointCorrupt) as caught:
        card(tmp_path, {**CARD, **change})
    assert says in str(caught.value)


def test_a_card_nested_beyond_reason(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointCorrupt, match="is not valid JSON"):
        read_card(tmp_path / "card.json")


def test_a_square_size_may_be_one_number(tmp_path: Path) -> None:
    assert card(tmp_path, {**CARD, "preprocess": {"size": 64}}).preprocess == PreprocessSpec((64, 64))


def test_bare_weights_of_a_variant() -> None:
    found = describe_variant("sk_resnet_18", 7)
    assert (found.variant, found.arguments["num_classes"], found.preprocess) == ("skresnet18", 7, PreprocessSpec())
    with pytest.raises(UnknownVariant):
        describe_variant("resnet18", 7)
