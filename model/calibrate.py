"""A folder of photographs -> an int8 graph that serves, and how far its answers are from float32's.

The photographs are read and prepared as the service does. Some of them stay out of the calibration: on those the two are
compared. No labels are needed. Knows nothing of NNCF (that is `model.quantise`) or of terminals.
"""

from __future__ import annotations

import logging
import math
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model import export, graphs
from model.checkpoint import Checkpoint, resolve
from model.engines import proof
from model.errors import EngineError, ImageError, ModelError
from model.graphs import Graph
from model.manager import Item, LoadedModel, LoadRequest, load
from model.quantise import nncf, quantise
from model.selection import graph_folders
from model.types import ModelInfo

logger = logging.getLogger("sknet.model")

LEAST = 10  # usable images, those kept out included
KEPT_OUT = 0.2
LEAST_KEPT_OUT = 3
MAX_FILE_BYTES = 100_000_000  # a film among the photographs is not read into memory

Progress = Callable[[Sequence[Any], str], Iterable[Any]]
Skipped = Callable[[Path, str], None]


@dataclass(frozen=True)
class Calibration:
    """What was made. `agreement` and `deviation` are over the `kept_out` images."""

    graph: Graph
    info: ModelInfo  # of the int8 model, as it is loaded from that graph
    images: int  # that the calibration saw
    kept_out: int
    agreement: float  # share of images whose first class is that of float32, 0 to 1
    deviation: float  # of the logits; see `model.engines.proof.deviation`


def calibrate(request: LoadRequest, photographs: Path, *, most: int, progress: Progress, skipped: Skipped) -> Calibration:
    """Make the int8 graph of a checkpoint, beside its file, or where nothing can be written there in the cache folder.

    Args:
        request: whose checkpoint it is and where the cache is; engine, device and precision are not read.
        photographs: a folder; everything in it and below is tried.
        most: images to calibrate over at most, the same ones each time; `KEPT_OUT` says how many more are read to compare.
        progress: called with a sequence and a word for what is done to it; gives it back item by item.
        skipped: told of each file that is no usable image, with the reason.

    Raises:
        ImageError: fewer than `LEAST` usable images.
        CheckpointError: weights that cannot be used.
        EngineError: NNCF or OpenVINO is missing or fails, nothing can be written, or int8 is too far from float32.
    """
    nncf()  # where it is missing, that is said before minutes of work
    files = _shuffled(photographs)
    checkpoint = resolve(
        request.checkpoint,
        variant=request.variant,
        labels_file=request.labels_file,
        sha256=request.sha256,
        cache_dir=request.cache_dir,
    )
    folders = list(graph_folders(checkpoint, request))
    place = _place(checkpoint, *folders)
    source = export.find(checkpoint, "float32", folders) or export.export_beside(checkpoint, _writable(*reversed(folders)))
    request = replace(request, engine="openvino", device="cpu")
    kept_out, seen, expected = _in_float32(replace(request, precision="float32"), files, most, progress, skipped)
    try:
        # Beside its place until it is proved: a graph that serves there is not lost to one that would be refused.
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=place, ignore_cleanup_errors=True) as trial:
            made = quantise(source, checkpoint.preprocess, [item.pixels for item in seen], Path(trial), progress)
            info, answers = _served(replace(request, precision="int8", graphs=Path(trial)), kept_out)
            graph = graphs.move(made, place)
    except OSError as error:
        raise EngineError(f"the int8 graph cannot be written to {place}: {error.strerror or type(error).__name__}") from error
    agreement = float((answers.argmax(1) == expected.argmax(1)).mean())
    return Calibration(graph, info, len(seen), len(kept_out), agreement, proof.deviation(answers, expected))


def _place(checkpoint: Checkpoint, beside: Path, cache: Path | None = None) -> Path:
    """Where the int8 graph goes: beside the checkpoint, which every service that uses the file finds, or into the cache.

    With one folder, it is that one.
    """
    if cache is None:
        return _writable(beside)
    place = _writable(beside, cache)
    if place == cache:
        if graphs.find(export.key_of(checkpoint, "int8"), (beside,)):
            raise EngineError(f"{beside} cannot be written, and the int8 graph in it would be found before a new one elsewhere")
        logger.warning("%s cannot be written: the int8 graph goes into the cache folder %s", beside, cache)
    return place


def _writable(*folders: Path) -> Path:
    """The first that can be written."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            reason = error.strerror or type(error).__name__
    raise EngineError(f"no graph can be written to {' or '.join(map(str, folders))}: {reason}")


def _shuffled(folder: Path) -> list[Path]:
    """Every file below a folder, in an order that mixes its folders and is the same each time."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ImageError(f"{folder} has no files" if folder.is_dir() else f"{folder} is no folder")
    random.Random(0).shuffle(files)  # noqa: S311 - no secret
    return files


def _in_float32(
    request: LoadRequest, files: Sequence[Path], most: int, progress: Progress, skipped: Skipped
) -> tuple[list[Item], list[Item], npt.NDArray[np.float32]]:
    """(images kept out, images to calibrate over, what float32 answers to the former)."""
    model = load(request)
    try:
        wanted = min(most + math.ceil(most * KEPT_OUT / (1 - KEPT_OUT)), len(files))
        # The slot comes first: zip asks the right one only for what the left one gave.
        items = [item for _, item in zip(progress(range(wanted), "reading"), _usable(model, files, skipped), strict=False)]
        if len(items) < LEAST:
            raise ImageError(f"{len(items)} of {len(files)} files are usable images; calibrating needs {LEAST} or more")
        count = max(LEAST_KEPT_OUT, round(KEPT_OUT * len(items)))
        return items[:count], items[count:], _answers(model, items[:count])
    finally:
        model.close()


def _usable(model: LoadedModel, files: Sequence[Path], skipped: Skipped) -> Iterator[Item]:
    for path in files:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                skipped(path, f"larger than {MAX_FILE_BYTES // 1_000_000} MB")
                continue
            yield model.prepare(path.read_bytes())
        except ImageError as error:
            skipped(path, str(error))
        except OSError as error:
            skipped(path, error.strerror or type(error).__name__)


def _answers(model: LoadedModel, items: Sequence[Item]) -> npt.NDArray[np.float32]:
    return np.stack([model.run([item])[0].logits for item in items])


def _served(request: LoadRequest, items: Sequence[Item]) -> tuple[ModelInfo, npt.NDArray[np.float32]]:
    """The answers of the int8 graph as a service would load it; one that a service would refuse is an error."""
    try:
        model = load(request)
    except ModelError as error:
        hint = "photographs of every brightness and contrast make it hold for more"
        raise EngineError(f"the int8 graph was not kept: {error}; {hint}") from error
    try:
        return model.info, _answers(model, items)
    finally:
        model.close()
