"""Exported graphs on disk: a network as an engine reads it, with the reference's answers that prove it. No torch, no engine.

A graph is a folder of four files: `graph.xml` and `graph.bin` (OpenVINO's intermediate representation; input float32
(1, 3, H, W), normalised; outputs as of `model.observed`), `known.npz` (what the float32 reference answers to the images of
`model.engines.proof`, and the classifier's weights) and `card.json`, which names what it was made from and the SHA-256 of the
others. A folder is written beside its place and then renamed into it: there is a whole graph or none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from model.digest import sha256_of
from model.errors import CheckpointNotFound

logger = logging.getLogger("sknet.model")

FORMAT = 2  # of the folder and of what the network's code makes of a checkpoint; another one is another key
FILES = ("graph.xml", "graph.bin", "known.npz")
CARD = "card.json"
LEFT_BEHIND_S = 3600  # far longer than writing takes: what is older was left by a process that was killed


@dataclass(frozen=True)
class Key:
    """What a graph depends on; graphs of different keys are never taken for one another."""

    checkpoint: str  # digest of the weights file, "sha256:<hex>"
    network: str  # SHA-256 of the constructor's arguments and the preprocessing, which need not stand in the weights file
    engine: str  # with its version: "openvino-2026.4.1"
    precision: str  # "float32", which the engine rounds as it likes, or "int8"
    format: int = FORMAT

    @property
    def folder(self) -> str:
        """The name of its folder: what a person looks for, then a digest of all of it."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.engine}-{self.precision}-{digest[:24]}"


def network_digest(arguments: dict[str, Any], preprocess: Any) -> str:
    """The `network` of a key, from the arguments of `SKNet` and a `PreprocessSpec`."""
    return hashlib.sha256(json.dumps([arguments, asdict(preprocess)], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Known:
    """What is known of a network beside its graph, all float32.

    `logits` (N, num_classes) and `attention` (N, U, M) are the reference's answers to the N images of `model.engines.proof`;
    `weight` (num_classes, F) and `bias` (num_classes,) are the classifier's.
    """

    logits: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Graph:
    """A graph that was found and verified."""

    path: Path
    key: Key
    known: Known
    parameters: int
    gmacs: float
    note: str = ""  # how it was made, for people

    @property
    def xml(self) -> Path:
        """The file an engine reads; its weights lie beside it."""
        return self.path / FILES[0]

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return sum(file.stat().st_size for file in self.path.iterdir())


def find(key: Key, folders: Iterable[Path]) -> Graph | None:
    """The graph of a key in the first of these folders that holds it whole; a damaged one is passed over and said so."""
    for folder in folders:
        path = folder / key.folder
        if not path.is_dir():
            continue
        try:
            return _read(path, key)
        except (CheckpointNotFound, OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
            logger.warning("the exported graph %s is not used: %s", path, _because(error))
    return None


def write(
    folder: Path,
    key: Key,
    known: Known,
    parameters: int,
    gmacs: float,
    save: Callable[[Path], None],
    note: str = "",
) -> Graph:
    """Write a graph into its place in `folder`, over whatever lies there. `save` writes the first file and its weights.

    Raises:
        OSError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    place = folder / key.folder
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder))
    try:
        save(unfinished / FILES[0])
        np.savez(unfinished / FILES[2], **{field.name: getattr(known, field.name) for field in fields(known)})
        hashes = {name: sha256_of(unfinished / name) for name in FILES}
        card = {"key": asdict(key), "sha256": hashes, "parameters": parameters, "gmacs": gmacs, "note": note}
        (unfinished / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        unfinished.chmod(0o755)  # mkdtemp's folders are their maker's alone; another user may serve from this one
        _put(unfinished, place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Graph(place, key, known, parameters, gmacs, note)


def move(graph: Graph, folder: Path) -> Graph:
    """Put a graph into its place in another folder of the same file system, over whatever lies there.

    Raises:
        OSError: the folder cannot be written.
    """
    place = folder / graph.key.folder
    _put(graph.path, place)
    return replace(graph, path=place)


def _sweep(folder: Path) -> None:
    for pattern in (".unfinished-*", ".old-*"):
        for left in folder.glob(pattern):
            with suppress(OSError):  # another process may sweep as well
                if time.time() - left.stat().st_mtime > LEFT_BEHIND_S:
                    shutil.rmtree(left, ignore_errors=True)


def _put(made: Path, place: Path) -> None:
    """Rename into place. What lies there is renamed away first: another process may read it, or be as far as we."""
    for _ in range(10):
        with suppress(OSError):
            made.rename(place)
            return
        old = Path(tempfile.mkdtemp(prefix=".old-", dir=place.parent))
        with suppress(OSError):
            place.rename(old / place.name)
        shutil.rmtree(old, ignore_errors=True)
    made.rename(place)


def _read(path: Path, key: Key) -> Graph:
    card = json.loads((path / CARD).read_text(encoding="utf-8"))
    if card["key"] != asdict(key):
        raise ValueError("it was made from something else")
    for name in FILES:
        if sha256_of(path / name) != card["sha256"][name]:
            raise ValueError(f"{name} is damaged")
    with np.load(path / FILES[2], allow_pickle=False) as arrays:
        known = Known(**{field.name: arrays[field.name] for field in fields(Known)})
    return Graph(path, key, known, int(card["parameters"]), float(card["gmacs"]), str(card["note"]))


def _because(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) if type(error) in (ValueError, CheckpointNotFound) else f"{CARD} is damaged"
