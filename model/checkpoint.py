"""The only reader of weights. A reference becomes a `Checkpoint`, and a `Checkpoint` becomes a network.

    resolve("hf-hub:timm/skresnet18.ra_in1k")   find, download, hash, read the configuration: no torch for safetensors
    build_network(checkpoint)                   tensors into an SKNet, strictly

What a reference may be is written in `model.reference`. This file knows nothing of devices, engines or images.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.card import Description, describe_variant, read_card, read_config
from model.digest import parse_sha256, sha256_of
from model.errors import ArchitectureError, CheckpointCorrupt, CheckpointMismatch, CheckpointUnsafe
from model.labels import imagenet1k, read_labels
from model.reference import Source, bundled_names, locate
from model.registry import VARIANTS
from model.registry import variant as find_variant
from model.shapes import Shape, class_count, difference, fitting_variant, read_shapes
from model.types import Label, PreprocessSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.sknet import SKNet

__all__ = ["Checkpoint", "build_network", "bundled_names", "load_into", "load_state", "resolve"]


@dataclass(frozen=True)
class Checkpoint:
    """Weights that were found, hashed and understood, but not read. `arguments` are all that `SKNet` needs, the block by name."""

    reference: str
    path: Path
    digest: str  # "sha256:<hex>" of the weights file
    variant: str
    arguments: dict[str, Any]
    preprocess: PreprocessSpec
    labels: tuple[Label, ...]
    licence: str | None = None
    accuracy: Mapping[str, float] = field(default_factory=dict)  # percent
    description: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)  # as it stands in the file; empty where there is none

    def __str__(self) -> str:
        return f"{self.reference} ({self.variant}, {len(self.labels)} classes)"


def resolve(
    reference: str,
    *,
    variant: str | None = None,
    labels_file: Path | None = None,
    sha256: str | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
) -> Checkpoint:
    """Find a checkpoint, verify its hash and read what it says of itself. Needs torch only for a pickle without configuration.

    Args:
        reference: see `model.reference`.
        variant: what bare weights are; without it, the first of the registry that fits their tensors.
        labels_file: names of the classes, before those of the checkpoint; see `model.labels.read_labels`.
        sha256: what the weights' SHA-256 must be.
        cache_dir: where downloads are kept, by default the hub's own cache.
        offline: use the cache alone.

    Raises:
        UnknownVariant: a bundled name, variant or architecture that is not known.
        CheckpointNotFound: nothing where the reference points.
        CheckpointCorrupt: a damaged file, another hash, a configuration that cannot be read.
        CheckpointMismatch: weights, configuration and labels that contradict each other, or classes without names.
        CheckpointUnsafe: a pickle that asks for more than tensors.
    """
    source = locate(reference, cache_dir=cache_dir, offline=offline)
    if source.weights.stat().st_size == 0:
        raise CheckpointCorrupt(f"{source.weights} is empty")
    digest = source.sha256 or sha256_of(source.weights)
    published = source.published
    _check_pin(source.weights, digest, sha256, "the SHA-256 asked for")
    _check_pin(source.weights, digest, published.sha256 if published else None, "the published SHA-256")
    description = _describe(source, variant or (published.variant if published else None))
    _check_pin(source.weights, digest, description.card.get("sha256"), "the SHA-256 in its card")
    if published:
        accuracy = {"top1": published.top1, "top5": published.top5}
        description = replace(description, accuracy=accuracy, licence=published.licence)
    return Checkpoint(
        reference=reference,
        path=source.weights,
        digest=f"sha256:{digest}",
        variant=description.variant,
        arguments=description.arguments,
        preprocess=description.preprocess,
        labels=_labels(reference, description, labels_file),
        licence=description.licence,
        accuracy=description.accuracy,
        description=description.description,
        card=description.card,
    )


def build_network(checkpoint: Checkpoint) -> SKNet:
    """Build the network that a checkpoint describes, with its weights, in evaluation mode, float32 on the CPU.

    Raises:
        ArchitectureError: arguments that make no network.
        CheckpointError: as `load_into`.
    """
    import torch

    from model.sknet import BLOCKS, SKNet

    arguments = dict(checkpoint.arguments)
    block = arguments.pop("block")
    if block not in BLOCKS:
        raise ArchitectureError(f"block={block!r}: allowed are {', '.join(BLOCKS)}")
    with torch.device("meta"):  # no time spent on random values that the weights replace
        net = SKNet(BLOCKS[block], arguments.pop("layers"), **arguments)
    net.to_empty(device="cpu")
    load_into(net, checkpoint)
    return net.eval()


def load_into(net: nn.Module, checkpoint: Checkpoint) -> None:
    """Load the weights into a network of the same tensors; only batch counters, which inference never reads, may be absent.

    Raises:
        CheckpointMismatch: other tensors; the text says how they differ and which variant would fit.
        CheckpointError: as `load_state`.
    """
    state = load_state(checkpoint)
    own = net.state_dict()
    given = _shapes(state)
    unlike = difference(_shapes(own), given)
    if unlike:
        fits = fitting_variant(given)
        hint = f"; the file fits {fits} with {class_count(given)} classes" if fits else ""
        raise CheckpointMismatch(f"the weights of {checkpoint} do not fit the network: {unlike}{hint}")
    counters = {key: tensor.new_zeros(()) for key, tensor in own.items() if key not in state}
    net.load_state_dict({**counters, **state})


def load_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Read the tensors onto the CPU; half-precision ones become float32.

    Raises:
        CheckpointCorrupt: a damaged file, or one that holds no tensors by name.
        CheckpointUnsafe: a pickle that asks for more than tensors and plain containers; none of it has run.
    """
    return _read_tensors(checkpoint.path)


def _check_pin(path: Path, digest: str, pin: object, whose: str) -> None:
    if pin is not None and parse_sha256(str(pin)) != digest:
        raise CheckpointCorrupt(f"{path} has SHA-256 {digest}, which is not {whose}, {pin}")


def _describe(source: Source, wanted: str | None) -> Description:
    safe = source.weights.suffix == ".safetensors"
    shapes = read_shapes(source.weights) if safe else {}
    description = _read_description(source)
    if description is not None:
        rows, classes = class_count(shapes), description.arguments["num_classes"]
        if rows not in (None, classes):
            raise CheckpointMismatch(f"{source.weights} has {rows} classes, but its configuration says {classes}")
        return _reconcile(description, wanted)
    if not safe:
        shapes = _shapes(_read_tensors(source.weights))
    rows, name = class_count(shapes), wanted or fitting_variant(shapes)
    if rows is None or name is None:
        raise CheckpointMismatch(
            f"{source.weights} comes without a configuration and fits none of {', '.join(VARIANTS)}: "
            "put a config.json beside it in a folder"
        )
    return describe_variant(name, rows)


def _read_description(source: Source) -> Description | None:
    if source.card:
        return read_card(source.card)
    if source.config and source.published:
        return read_config(source.config, source.published.preprocess)
    return read_config(source.config) if source.config else None


def _reconcile(description: Description, wanted: str | None) -> Description:
    if wanted in (None, description.variant):  # a card's variant need not be one of the registry
        return description
    asked, has = find_variant(wanted), VARIANTS.get(description.variant)
    if has is None or asked.arguments != has.arguments:
        raise CheckpointMismatch(
            f"the variant asked for is {asked.name}, but the checkpoint's configuration says {description.variant}"
        )
    return replace(description, variant=asked.name)  # sknet50 and skresnext50_32x4d are one network with two names


def _labels(text: str, description: Description, labels_file: Path | None) -> tuple[Label, ...]:
    classes: int = description.arguments["num_classes"]
    labels = read_labels(labels_file) if labels_file else description.labels
    if labels is None:
        if classes != len(imagenet1k()):
            raise CheckpointMismatch(f"{text} has {classes} classes and no names for them: pass a labels file that names them")
        return imagenet1k()
    if len(labels) != classes:
        origin = f"the labels file {labels_file}" if labels_file else f"the configuration of {text}"
        raise CheckpointMismatch(f"{origin} has {len(labels)} labels for {classes} classes")
    return labels


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    import torch

    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    half = (torch.float16, torch.bfloat16)
    return {key: tensor.float() if tensor.dtype in half else tensor for key, tensor in state.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointCorrupt(f"{path} is damaged, cut short, or no safetensors file ({error})") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)|whose module (\S+) is blocked", str(error))
        what = f" ({asked[1] or asked[2]})" if asked else ""
        raise CheckpointUnsafe(
            f"{path} is refused: it is no plain file of tensors, or asks to run code while it is read{what}; none of it was run"
        ) from error
    except Exception as error:  # damaged bytes can raise anything: EOFError, RuntimeError, KeyError, struct.error, ...
        raise CheckpointCorrupt(f"{path} is damaged or cut short ({type(error).__name__})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(t, torch.Tensor) for t in loaded.values()):
        raise CheckpointCorrupt(f"{path} holds no tensors by name")
    prefixed = all(str(key).startswith("module.") for key in loaded)  # saved from DataParallel
    return {str(key).removeprefix("module.") if prefixed else str(key): tensor for key, tensor in loaded.items()}
