"""Names and shapes of tensors: what a file holds, what a variant needs, and how the two differ. No torch, no values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from model.errors import CheckpointCorrupt
from model.registry import VARIANTS

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = dict[str, Shape]

_CHANNELS = (64, 128, 256, 512)
_KERNELS = 2  # every variant of the registry has the paper's pair
_COUNTER = "num_batches_tracked"  # only training reads it, and many published files leave it out


def read_shapes(path: Path) -> Shapes:
    """Shapes of a safetensors file from its header alone.

    Raises:
        CheckpointCorrupt: no safetensors file, or one cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise CheckpointCorrupt(f"{path} is damaged, cut short, or no safetensors file ({error})") from error


def fitting_variant(shapes: Mapping[str, Shape]) -> str | None:
    """The first variant of the registry that these tensors fit exactly, whatever the number of classes."""
    classes = class_count(shapes)
    if classes is None:
        return None
    weights = {key: shape for key, shape in shapes.items() if not key.endswith(_COUNTER)}
    return next((v.name for v in VARIANTS.values() if variant_shapes(v.arguments, classes) == weights), None)


def class_count(shapes: Mapping[str, Shape]) -> int | None:
    """Rows of the classifier, None where there is none."""
    shape = shapes.get("fc.weight", ())
    return shape[0] if len(shape) == 2 else None


def difference(needed: Mapping[str, Shape], given: Mapping[str, Shape]) -> str | None:
    """How a file's tensors differ from a network's, in words with counts and the first few names; None if they do not."""
    missing = [key for key in needed if key not in given and not key.endswith(_COUNTER)]
    unexpected = [key for key in given if key not in needed]
    reshaped = [
        f"{key} is {_by(given[key])}, not {_by(needed[key])}" for key in needed if key in given and given[key] != needed[key]
    ]
    parts = [
        f"{len(names)} {kind} ({_first(names)})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]
    return ", ".join(parts) or None


def variant_shapes(arguments: Mapping[str, Any], num_classes: int) -> Shapes:
    """Shapes of a registry variant's tensors, without building it; batch counters left out.

    Covers what the registry's variants use (two dilated 3x3 kernels, plain or deep stem), not all that `SKNet` can be.
    """
    shapes: Shapes = {}
    channels = _add_stem(shapes, arguments)
    basic = arguments["block"] == "basic"
    for stage, (planes, depth) in enumerate(zip(_CHANNELS, arguments["layers"], strict=True), start=1):
        out = planes if basic else planes * 4
        for i in range(depth):
            block = f"layer{stage}.{i}"
            if basic:
                _add_unit(shapes, f"{block}.conv1", channels, planes, arguments)
                _add_conv(shapes, f"{block}.conv2", (planes, planes, 3, 3))
            else:
                width = planes * arguments.get("base_width", 64) // 64 * arguments.get("cardinality", 1)
                _add_conv(shapes, f"{block}.conv1", (width, channels, 1, 1))
                _add_unit(shapes, f"{block}.conv2", width, width, arguments)
                _add_conv(shapes, f"{block}.conv3", (out, width, 1, 1))
            if i == 0 and (stage > 1 or channels != out):
                conv = 1 if arguments.get("avg_down") else 0  # an average pool goes before it
                shapes[f"{block}.downsample.{conv}.weight"] = (out, channels, 1, 1)
                _add_norm(shapes, f"{block}.downsample.{conv + 1}", out)
            channels = out
    shapes["fc.weight"] = (num_classes, channels)
    shapes["fc.bias"] = (num_classes,)
    return shapes


def _add_stem(shapes: Shapes, arguments: Mapping[str, Any]) -> int:
    width: int = arguments.get("stem_width", 64)
    if arguments.get("stem_type") == "deep":
        for index, shape in ((0, (width, 3, 3, 3)), (3, (width, width, 3, 3)), (6, (2 * width, width, 3, 3))):
            shapes[f"conv1.{index}.weight"] = shape
        _add_norm(shapes, "conv1.1", width)
        _add_norm(shapes, "conv1.4", width)
        width *= 2
    else:
        shapes["conv1.weight"] = (width, 3, 7, 7)
    _add_norm(shapes, "bn1", width)
    return width


def _add_unit(shapes: Shapes, name: str, channels: int, out: int, arguments: Mapping[str, Any]) -> None:
    seen = channels // _KERNELS if arguments["split_input"] else channels
    for m in range(_KERNELS):
        _add_conv(shapes, f"{name}.paths.{m}", (out, seen // arguments.get("cardinality", 1), 3, 3))
    d = reduced_width(out, arguments["rd_ratio"], arguments["rd_divisor"])
    shapes[f"{name}.attn.fc_reduce.weight"] = (d, out, 1, 1)
    _add_norm(shapes, f"{name}.attn.bn", d)
    shapes[f"{name}.attn.fc_select.weight"] = (out * _KERNELS, d, 1, 1)


def _add_conv(shapes: Shapes, name: str, shape: Shape) -> None:
    shapes[f"{name}.conv.weight"] = shape
    _add_norm(shapes, f"{name}.bn", shape[0])


def _add_norm(shapes: Shapes, name: str, channels: int) -> None:
    for part in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{name}.{part}"] = (channels,)


def reduced_width(channels: int, ratio: float, divisor: int) -> int:
    """`model.layers.make_divisible(channels * ratio, divisor)`, repeated because that file needs torch."""
    value = channels * ratio
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _by(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a scalar"


def _first(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
