"""From a reference to a model that serves: resolve, build, load, warm up. Fails whole, never half.

`LoadedModel` is all that `app/` sees of this package at work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model import engines
from model.checkpoint import Checkpoint, build_network, resolve
from model.device import Placement, place
from model.engines.base import Engine
from model.errors import EngineError
from model.image import ImageLimits, decode
from model.postprocess import top_k
from model.preprocess import describe, prepare
from model.types import ImageInfo, ModelInfo, Prediction


@dataclass(frozen=True)
class LoadRequest:
    """What to load and how. `device`, `precision` and `threads` as in `model.device.place`."""

    checkpoint: str
    variant: str | None = None
    labels_file: Path | None = None
    sha256: str | None = None
    cache_dir: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    engine: str = "eager"
    max_pixels: int = 50_000_000


@dataclass(frozen=True, slots=True)
class Item:
    """One prepared image. `array` is (3, H, W) float32; callers outside this package look at `image` only."""

    array: npt.NDArray[np.float32]
    image: ImageInfo


class LoadedModel:
    """A warmed model: bytes in, predictions out, in steps that a scheduler can put in order.

    Every method may be called from several threads at once.
    """

    def __init__(self, info: ModelInfo, engine: Engine, limits: ImageLimits) -> None:
        self.info = info
        self.preprocess_sentence = describe(info.preprocess)
        self._engine = engine
        self._limits = limits

    def prepare(self, data: bytes) -> Item:
        """Encoded bytes -> a prepared image.

        Raises:
            ImageError: the bytes are no usable image.
        """
        image, what = decode(data, self._limits)
        return Item(prepare(image, self.info.preprocess), what)

    def run(self, items: Sequence[Item]) -> list[npt.NDArray[np.float32]]:
        """One call of the engine: a row of logits (num_classes,) for each item.

        Raises:
            EngineError: the engine failed, or gave something else than one row an item.
        """
        logits = self._engine.run(np.stack([item.array for item in items]))
        if logits.shape != (len(items), self.info.num_classes):
            raise EngineError(f"the engine gave {logits.shape} for {len(items)} images of {self.info.num_classes} classes")
        return list(logits)

    def top_k(self, row: npt.NDArray[np.float32], k: int) -> tuple[Prediction, ...]:
        """The k best classes of a row.

        Raises:
            EngineError: logits that are not finite.
        """
        return top_k(row, k, self.info.labels)

    def close(self) -> None:
        """Give the memory back."""
        self._engine.close()


def load(request: LoadRequest) -> LoadedModel:
    """Make a model ready to serve: verified, loaded, and run once.

    Raises:
        CheckpointError: weights that cannot be used.
        DeviceError: a device or precision that this machine does not have.
        EngineError: the first run failed.
    """
    started = time.monotonic()
    checkpoint = resolve(
        request.checkpoint,
        variant=request.variant,
        labels_file=request.labels_file,
        sha256=request.sha256,
        cache_dir=request.cache_dir,
    )
    placement = place(request.device, request.precision, request.threads)
    engine = engines.make(request.engine, partial(build_network, checkpoint), checkpoint.preprocess.size, placement)
    try:
        _warm_up(engine, checkpoint)
    except BaseException:
        engine.close()
        raise
    info = _info(checkpoint, placement, engine, time.monotonic() - started)
    return LoadedModel(info, engine, ImageLimits(max_pixels=request.max_pixels))


def _warm_up(engine: Engine, checkpoint: Checkpoint) -> None:
    """One run before serving: what would fail fails now, and nobody's first request pays for allocations."""
    height, width = checkpoint.preprocess.size
    logits = engine.run(np.zeros((1, 3, height, width), np.float32))
    if logits.shape != (1, len(checkpoint.labels)):
        raise EngineError(f"the network gives {logits.shape[-1]} outputs for {len(checkpoint.labels)} labels")
    if not np.isfinite(logits).all():
        raise EngineError("the network's first output is not finite: the weights hold NaN or infinity")


def _info(checkpoint: Checkpoint, placement: Placement, engine: Engine, seconds: float) -> ModelInfo:
    return ModelInfo(
        variant=checkpoint.variant,
        arguments=checkpoint.arguments,
        labels=checkpoint.labels,
        preprocess=checkpoint.preprocess,
        parameters=engine.parameters,
        gmacs=engine.gmacs,
        checkpoint=checkpoint.reference,
        digest=checkpoint.digest,
        engine=engine.choice,
        device=placement.device,
        dtype=placement.dtype,
        memory_format=placement.memory_format,
        threads=placement.threads,
        licence=checkpoint.licence,
        accuracy=checkpoint.accuracy,
        description=checkpoint.description,
        load_seconds=round(seconds, 3),
    )
