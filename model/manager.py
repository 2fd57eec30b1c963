"""From a reference to a model that serves: resolve, build, load, warm up. Fails whole, never half.

`LoadedModel` is all that `app/` sees of this package at work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.checkpoint import Checkpoint, resolve
from model.engines import proof
from model.engines.base import Engine
from model.errors import EngineError
from model.golden import LIMITS, golden_of, verify
from model.guard import Guard
from model.image import ImageLimits, decode, decode_reduced
from model.memory import give_back_large_blocks
from model.postprocess import top_k
from model.preprocess import describe, least_size, pixels, quick_pixels
from model.selection import Selected, Wish, select
from model.types import ImageInfo, ModelInfo, Prediction


@dataclass(frozen=True, kw_only=True)
class LoadRequest(Wish):
    """What to load, and how. The fields are `model.checkpoint.resolve`'s and `model.selection.Wish`'s.

    `preprocess` is "fast" or "exact": `model.preprocess.quick_pixels` from JPEGs decoded at reduced size, or the reference path.
    """

    checkpoint: str
    variant: str | None = None
    labels_file: Path | None = None
    preprocess: str = "fast"
    max_pixels: int = 50_000_000
    max_side: int = 65_535
    max_frames: int = 1000
    max_metadata_bytes: int = 4_000_000
    decode_s: float = 5.0
    decode_memory_bytes: int = 1_500_000_000


@dataclass(frozen=True, slots=True)
class Item:
    """One prepared image. `pixels` is (H, W, 3) uint8, perhaps read-only; callers outside this package look at `image` only."""

    pixels: npt.NDArray[np.uint8]
    image: ImageInfo


class Busy:
    """Counts the threads inside; entering tells how many others there are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    @property
    def count(self) -> int:
        """How many are inside."""
        return self._count

    def __enter__(self) -> int:
        with self._lock:
            self._count += 1
            return self._count - 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1


class LoadedModel:
    """A warmed model: bytes in, predictions out, in steps that a scheduler can put in order.

    Every method may be called from several threads at once.
    """

    def __init__(
        self, info: ModelInfo, engine: Engine, limits: ImageLimits, *, guard: Guard | None = None, exact: bool = False
    ) -> None:
        self.info = info
        self.preprocess_sentence = describe(info.preprocess, exact=exact)
        self._engine = engine
        self._limits = limits
        self._guard = guard or Guard(limits)
        self._busy, self._apart = Busy(), Busy()
        self._exact = exact

    @property
    def apart(self) -> int:
        """How many threads wait for a process that decodes for them."""
        return self._apart.count

    def prepare(self, data: bytes) -> Item:
        """Encoded bytes -> a prepared image.

        Raises:
            ImageError: the bytes are no usable image.
            DecoderUnavailable: an image of a format that is decoded in a process of its own, and there is none.
        """
        spec = self.info.preprocess
        with self._busy:
            if self._exact:
                image, what = decode(data, self._limits, self._decode_apart)
                return Item(pixels(image, spec), what)
            picture = decode_reduced(data, self._limits, partial(least_size, spec=spec), self._decode_apart)
            what = picture.info
            return Item(quick_pixels(picture.image, spec, (what.width, what.height), picture.extent), what)

    def _decode_apart(self, name: str, data: bytes) -> Image.Image:
        with self._apart:
            return self._guard.decode(name, data)

    def run(self, items: Sequence[Item]) -> list[npt.NDArray[np.float32]]:
        """One call of the engine: a row of logits (num_classes,) for each item.

        Raises:
            EngineError: the engine failed, or gave something else than one row of finite numbers an item.
        """
        with self._busy as others:
            logits = self._engine.run(np.stack([item.pixels for item in items]), alone=not others)
        if logits.shape != (len(items), self.info.num_classes):
            raise EngineError(f"the engine gave {logits.shape} for {len(items)} images of {self.info.num_classes} classes")
        if not np.isfinite(logits).all():  # pixels are always finite: the fault is the engine's, and its watchdog must learn so
            raise EngineError(f"the engine gave numbers that are not finite for {len(items)} images")
        return list(logits)

    def top_k(self, row: npt.NDArray[np.float32], k: int) -> tuple[Prediction, ...]:
        """The k best classes of a row.

        Raises:
            EngineError: logits that are not finite.
        """
        return top_k(row, k, self.info.labels)

    def close(self) -> None:
        """Give the memory back."""
        self._guard.close()
        self._engine.close()


def load(request: LoadRequest) -> LoadedModel:
    """Make a model ready to serve: verified, loaded, run once, proved against the reference and by its golden image.

    Raises:
        CheckpointError: weights that cannot be used, or a golden image that does not come out as its card says.
        DeviceError: a device or precision that this machine does not have.
        EngineError: the engine failed, or is too far from the reference; where "auto" chose, every engine did.
    """
    started = time.monotonic()
    give_back_large_blocks()
    checkpoint = resolve(
        request.checkpoint,
        variant=request.variant,
        labels_file=request.labels_file,
        sha256=request.sha256,
        cache_dir=request.cache_dir,
    )
    golden = golden_of(checkpoint.card, None if request.labels_file else checkpoint.labels)
    selected = select(checkpoint, request)
    exact = request.preprocess == "exact"
    try:
        info = _info(checkpoint, selected, started)
        if golden is not None:
            verify(golden, LoadedModel(info, selected.engine, LIMITS, exact=exact))
    except BaseException:
        selected.engine.close()
        raise
    limits = ImageLimits(
        max_pixels=request.max_pixels,
        max_side=request.max_side,
        max_frames=request.max_frames,
        max_metadata_bytes=request.max_metadata_bytes,
    )
    guard = Guard(limits, seconds=request.decode_s, memory_bytes=request.decode_memory_bytes)
    return LoadedModel(info, selected.engine, limits, guard=guard, exact=exact)


def _info(checkpoint: Checkpoint, selected: Selected, started: float) -> ModelInfo:
    engine, placement = selected.engine, selected.engine.placement
    speed = proof.speed(engine.run, checkpoint.preprocess.size, int(engine.streams.value), engine.batch_size)
    return ModelInfo(
        variant=checkpoint.variant,
        arguments=checkpoint.arguments,
        labels=checkpoint.labels,
        preprocess=checkpoint.preprocess,
        parameters=engine.parameters,
        gmacs=engine.gmacs,
        checkpoint=checkpoint.reference,
        digest=checkpoint.digest,
        engine=selected.choice,
        device=placement.device,
        dtype=placement.dtype,
        memory_format=placement.memory_format,
        threads=placement.threads,
        streams=engine.streams,
        batch_size=engine.batch_size,
        deviation=selected.deviation,
        images_per_second=round(speed, 1),
        licence=checkpoint.licence,
        accuracy=checkpoint.accuracy,
        description=checkpoint.description,
        load_seconds=round(time.monotonic() - started, 3),
    )
