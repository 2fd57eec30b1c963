"""What a checkpoint says of itself: the hub's `config.json`, and the JSON card beside a bundled file.

Reads no weights. Whether the weights agree is for `model.checkpoint` to find out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.errors import CheckpointCorrupt, CheckpointError, CheckpointNotFound
from model.labels import parse_labels
from model.preprocess import check
from model.registry import VARIANTS, variant
from model.types import Label, PreprocessSpec

# Constructor arguments of SKNet, and timm's names for them. What only matters in training says nothing of the weights.
_OWN = (
    *("layers", "num_classes", "kernel_sizes", "base_width", "cardinality", "in_channels", "channels", "avg_down"),
    *("stem_type", "stem_width", "stem_kernel_size", "stem_stride", "split_input", "rd_ratio", "rd_divisor", "keep_3x3"),
)
_TIMM = {"in_chans": "in_channels", "kernel_size": "kernel_sizes"}
_TRAINING = ("drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last")

MAX_BYTES = 16_000_000  # of the file: names of a hundred thousand classes with their descriptions take less
_USUAL = PreprocessSpec()  # ImageNet's, for files that say nothing of it


@dataclass(frozen=True)
class Description:
    """A checkpoint without its weights. `labels` is None where it does not name its classes."""

    variant: str
    arguments: dict[str, Any]
    preprocess: PreprocessSpec = _USUAL
    labels: tuple[Label, ...] | None = None
    licence: str | None = None
    accuracy: Mapping[str, float] = field(default_factory=dict)
    description: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)


def describe_variant(name: str, num_classes: int) -> Description:
    """What can be said of bare weights of a variant: its arguments, and ImageNet's usual preprocessing.

    Raises:
        UnknownVariant: no such variant.
    """
    found = variant(name)
    return Description(found.name, _complete(found.arguments, {"num_classes": num_classes}))


def read_config(path: Path, usual: PreprocessSpec = _USUAL) -> Description:
    """Read a `config.json` in timm's hub layout (fields: `architecture`, `num_classes`, `pretrained_cfg`, `label_names`, ...).

    `usual` is the preprocessing where the file leaves it out.

    Raises:
        CheckpointNotFound: the file cannot be read.
        CheckpointCorrupt: not JSON, or a field that makes no sense or no SKNet; the text names it.
        UnknownVariant: an architecture that is not in the registry.
    """
    config = _read_object(path)
    architecture = config.get("architecture")
    if not isinstance(architecture, str):
        raise CheckpointCorrupt(f"{path} has no 'architecture': it must name one of {', '.join(VARIANTS)}")
    known = variant(architecture.partition(".")[0])  # timm writes name.tag in places
    pretrained = _object(config.get("pretrained_cfg", {}), "pretrained_cfg", path)
    given = _from_timm(_object(config.get("model_args", {}), "model_args", path), path)
    pool = config.get("global_pool", "avg")
    if pool != "avg":
        raise CheckpointCorrupt(f"{path}: global_pool={pool!r}: an SKNet averages, 'avg'")

    def either(key: str) -> Any:  # the top level wins: it describes these weights, the other the ones they came from
        return config.get(key) if config.get(key) is not None else pretrained.get(key)

    if (classes := either("num_classes")) is not None:
        given["num_classes"] = classes
    names, descriptions = either("label_names"), either("label_descriptions")
    return Description(
        variant=known.name,
        arguments=_checked(_complete(known.arguments, given), path),
        preprocess=_preprocess(pretrained, path, usual),
        labels=None if names is None else _labels(names, descriptions if isinstance(descriptions, dict) else None, path),
        licence=_text(either("license")),
        description=_text(config.get("description")),
    )


def read_card(path: Path) -> Description:
    """Read a card: `variant`, `arguments`, `preprocess`, `labels`, `accuracy`, `licence`, `description`, and what else it tells.

    The variant may be one of the registry, whose arguments then fill in those left out, or any name.

    Raises:
        CheckpointNotFound: the file cannot be read.
        CheckpointCorrupt: not JSON, or a field that is missing or makes no sense; the text names it.
    """
    card = _read_object(path)
    name = card.get("variant")
    if not isinstance(name, str):
        raise CheckpointCorrupt(f"{path} has no 'variant'")
    given = _object(card.get("arguments"), "arguments", path)
    base = VARIANTS[name].arguments if name in VARIANTS else {}
    unknown = sorted(set(given) - {"block", *_OWN})
    if unknown:
        raise CheckpointCorrupt(f"{path}: arguments has {', '.join(unknown)}: allowed are block, {', '.join(_OWN)}")
    arguments = _complete(base, given)
    for needed in ("block", "layers"):
        if needed not in arguments:
            raise CheckpointCorrupt(f"{path}: arguments has no {needed!r}")
    labels = card.get("labels")
    return Description(
        variant=name,
        arguments=_checked(arguments, path),
        preprocess=_preprocess(_object(card.get("preprocess", {}), "preprocess", path), path),
        labels=None if labels is None else _labels(labels, None, path),
        licence=_text(card.get("licence")),
        accuracy={k: _number(v, f"accuracy.{k}", path) for k, v in _object(card.get("accuracy", {}), "accuracy", path).items()},
        description=_text(card.get("description")),
        card=card,
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise CheckpointCorrupt(f"{path} has more than {MAX_BYTES} bytes")
        return _object(json.loads(data.decode("utf-8")), "the file", path)
    except OSError as error:
        raise CheckpointNotFound(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, nested beyond reason
        raise CheckpointCorrupt(f"{path} is not valid JSON: {error}") from error


def _object(value: object, field_name: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointCorrupt(f"{path}: {field_name} must be a JSON object, not {json.dumps(value)[:40]}")
    return value


def _from_timm(given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """timm's `model_args` under the names that SKNet has for them; `block_args.sk_kwargs` holds the unit's."""
    flat = {key: value for key, value in given.items() if key not in (*_TRAINING, "block_args", "global_pool")}
    block = _object(given.get("block_args") or {}, "model_args.block_args", path)
    flat |= _object(block.get("sk_kwargs") or {}, "model_args.block_args.sk_kwargs", path)
    named = {_TIMM.get(key, key): value for key, value in flat.items()}
    unknown = sorted({*named} - {*_OWN}) + sorted({*block} - {"sk_kwargs"})
    if unknown:
        raise CheckpointCorrupt(
            f"{path}: model_args has {', '.join(unknown)}, which no SKNet takes; allowed are {', '.join(_OWN)}"
        )
    if given.get("global_pool", "avg") != "avg":
        raise CheckpointCorrupt(f"{path}: model_args.global_pool={given['global_pool']!r}: an SKNet averages, 'avg'")
    if named.get("stem_type") == "":  # timm's word for the plain stem
        named["stem_type"] = None
    return named


def _complete(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    full = {"num_classes": 1000, "kernel_sizes": (3, 5), "base_width": 64, "cardinality": 1, **base, **given}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in full.items()}


def _checked(arguments: dict[str, Any], path: Path) -> dict[str, Any]:
    classes, channels = arguments["num_classes"], arguments.get("in_channels", 3)
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise CheckpointCorrupt(f"{path}: num_classes={classes!r}: give a whole number, 1 or more")
    if channels != 3:
        raise CheckpointCorrupt(f"{path}: the network takes {channels} channels; images are given to it in RGB, 3")
    return arguments


def _labels(names: object, descriptions: dict[str, str] | None, path: Path) -> tuple[Label, ...]:
    try:
        return parse_labels(names, descriptions)
    except CheckpointCorrupt as error:
        raise CheckpointCorrupt(f"{path}: {error}") from error


def _preprocess(fields: Mapping[str, Any], path: Path, default: PreprocessSpec = _USUAL) -> PreprocessSpec:
    """From the hub's fields (`input_size` of three) or a card's (`size`); what is left out is `default`'s."""
    given = {key: value for key, value in fields.items() if value is not None}
    size = given.get("size", given.get("input_size", default.size))
    spec = PreprocessSpec(
        size=_whole_pair([size, size] if isinstance(size, int) else size, path),
        crop_pct=_number(given.get("crop_pct", default.crop_pct), "crop_pct", path),
        crop_mode=str(given.get("crop_mode", default.crop_mode)),
        interpolation=str(given.get("interpolation", default.interpolation)),
        mean=_triple(given.get("mean", default.mean), "mean", path),
        std=_triple(given.get("std", default.std), "std", path),
    )
    try:
        check(spec)
    except CheckpointError as error:
        raise CheckpointCorrupt(f"{path}: {error}") from error
    return spec


def _whole_pair(value: object, path: Path) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) not in (2, 3) or not all(type(n) is int for n in value):
        raise CheckpointCorrupt(f"{path}: the input size is {value!r}: give height and width in pixels")
    return value[-2], value[-1]


def _number(value: object, name: str, path: Path) -> float:
    # JSON as Python reads it has NaN, Infinity and whole numbers beyond any float: the comparison refuses all three.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise CheckpointCorrupt(f"{path}: {name} is {value!r}, where a number belongs")
    return value


def _triple(value: object, name: str, path: Path) -> tuple[float, float, float]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise CheckpointCorrupt(f"{path}: {name} is {value!r}, where three numbers belong")
    red, green, blue = (_number(v, name, path) for v in value)
    return red, green, blue


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
