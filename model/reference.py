"""Checkpoint references: what they mean, and the files they lead to. One syntax everywhere.

    bundled:NAME                    a checkpoint that comes with this package
    hf-hub:ORG/NAME[@REVISION]      a repository of the Hugging Face hub
    NAME                            published weights out of `registry.WEIGHTS`
    PATH                            a .safetensors, .pth, .pt or .bin file, or a folder in the hub's layout

Opens none of the files: what they hold is for `model.card`, `model.shapes` and `model.checkpoint`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from model import hub
from model.errors import CheckpointCorrupt, CheckpointNotFound, UnknownVariant
from model.registry import WEIGHTS, Weights

BUNDLED_FOLDER = Path(__file__).with_name("checkpoints")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True)
class Bundled:
    name: str


@dataclass(frozen=True)
class Local:
    path: Path


@dataclass(frozen=True)
class Hub:
    repository: str
    revision: str | None = None
    weights: Weights | None = None  # what the registry knows of it, where it was named by a registry name


Reference: TypeAlias = Bundled | Local | Hub


@dataclass(frozen=True)
class Source:
    """Files on this disk. `sha256` is that of the weights where somebody had to compute it already."""

    weights: Path
    config: Path | None = None  # in the hub's layout
    card: Path | None = None  # this package's own
    sha256: str | None = None
    published: Weights | None = None


def bundled_names() -> tuple[str, ...]:
    """Checkpoints that come with this package: a .safetensors file with a card beside it."""
    return tuple(sorted(p.stem for p in BUNDLED_FOLDER.glob("*.safetensors") if p.with_suffix(".json").is_file()))


def parse(text: str) -> Reference:
    """Take a reference apart; looks at no disk and no network.

    Raises:
        CheckpointNotFound: empty, a hub reference that names no repository, or a home folder of nobody.
    """
    if not text.strip():
        raise CheckpointNotFound("the checkpoint reference is empty: give bundled:NAME, hf-hub:ORG/NAME, a name or a path")
    if text.startswith("bundled:"):
        return Bundled(text.removeprefix("bundled:"))
    if text.startswith("hf-hub:"):
        found = _HUB.fullmatch(text.removeprefix("hf-hub:"))
        if found is None:
            raise CheckpointNotFound(f"{text!r} names no repository of the hub: write hf-hub:ORG/NAME[@REVISION]")
        return Hub(found["repository"], found["revision"])
    if text in WEIGHTS:
        weights = WEIGHTS[text]
        return Hub(weights.repository, weights=weights)
    try:
        return Local(Path(text).expanduser())
    except RuntimeError as error:
        raise CheckpointNotFound(f"{text!r} begins with the home folder of nobody here") from error


def locate(text: str, *, cache_dir: Path | None = None, offline: bool = False) -> Source:
    """Find the files that a reference leads to, downloading them where they are on the hub and not in the cache.

    Raises:
        UnknownVariant: no bundled checkpoint of that name.
        CheckpointNotFound: nothing there, or a folder that lacks its configuration or its weights.
        CheckpointCorrupt: a file that is no weights file, or a damaged download.
    """
    match parse(text):
        case Bundled(name):
            names = bundled_names()
            if name not in names:
                raise UnknownVariant("bundled checkpoint", name, names or ("none",))
            file = BUNDLED_FOLDER / f"{name}.safetensors"
            return Source(file, card=file.with_suffix(".json"))
        case Hub(repository, revision, weights):
            files = hub.fetch(repository, revision, cache_dir=cache_dir, offline=offline)
            return Source(files.weights, files.config, sha256=files.sha256, published=weights)
        case Local(path):
            try:
                return _on_disk(text, path)
            except OSError as error:  # a name too long, a folder that may not be entered
                raise CheckpointNotFound(f"{text!r} cannot be looked up on this disk: {error.strerror}") from error


def _on_disk(text: str, path: Path) -> Source:
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        return _beside(path)
    raise CheckpointNotFound(
        f"{text!r} is neither a file or folder here, nor a known name ({', '.join(WEIGHTS)}); "
        "others are bundled:NAME and hf-hub:ORG/NAME[@REVISION]"
    )


def _in_folder(folder: Path) -> Source:
    config = folder / hub.CONFIG_FILE
    if not config.is_file():
        raise CheckpointNotFound(f"the folder {folder} has no {hub.CONFIG_FILE}")
    for name in hub.WEIGHT_FILES:
        if (folder / name).is_file():
            return Source(folder / name, config)
    raise CheckpointNotFound(f"the folder {folder} has no weights: {' or '.join(hub.WEIGHT_FILES)}")


def _beside(file: Path) -> Source:
    """A weights file with what lies beside it: NAME.json, or config.json where the file has a name of the hub's layout."""
    if file.suffix not in SUFFIXES:
        raise CheckpointCorrupt(f"{file} is no weights file: allowed are {', '.join(SUFFIXES)}")
    card, config = file.with_suffix(".json"), file.with_name(hub.CONFIG_FILE)
    if card.is_file():
        return Source(file, card=card)
    return Source(file, config if file.name in hub.WEIGHT_FILES and config.is_file() else None)
