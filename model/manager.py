"""From a reference to a model that serves: resolve, build, load, warm up. Fails whole, never half.

`LoadedModel` is all that `app/` sees of this package at work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model import plots
from model.checkpoint import Checkpoint, resolve
from model.crops import centre, seen_of
from model.drawing import Drawings
from model.engines import proof
from model.engines.base import Engine
from model.errors import EngineError
from model.explain import SCALES, class_activation, kernel_attention, units_of
from model.figure import Maker, least_drawn
from model.golden import LIMITS, golden_of, verify
from model.guard import Guard
from model.image import ImageLimits, decode, decode_reduced
from model.memory import give_back_large_blocks
from model.overlay import overlay_png
from model.postprocess import scores_of, top_k
from model.preprocess import describe, least_size, pixels, quick_pixels
from model.selection import Selected, Wish, select
from model.tensors import checked
from model.types import (
    Box,
    ClassActivation,
    Explanation,
    ImageInfo,
    KernelAttention,
    ModelInfo,
    Prediction,
    ScaleAttention,
    ScoreFunction,
)


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
    """One prepared image; callers outside this package look at `image` only.

    `pixels` is (H, W, 3) uint8, perhaps read-only, or (3, H, W) float32, normalised already.

    `scale` is how many times its centre was enlarged; `features` says that a class activation map will be wanted.
    """

    pixels: npt.NDArray[Any]
    image: ImageInfo
    scale: float = 1.0
    features: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What the network made of one image: logits (num_classes,), attention (U, M), features (F, H', W') where they were wanted.

    Opaque outside this package. The arrays are parts of a batch's; a copy stands for itself.
    """

    logits: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32] | None = None

    def __copy__(self) -> Row:
        return Row(self.logits.copy(), self.attention.copy(), None if self.features is None else self.features.copy())


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
        self._drawings = Drawings()
        self._busy, self._apart = Busy(), Busy()
        self._exact = exact
        self._units = units_of(info.arguments)

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

    def prepare_array(self, array: npt.NDArray[Any]) -> Item:
        """An input that others prepared, taken as it is: uint8 pixels (H, W, 3) in RGB, or float32 (3, H, W), normalised.

        Raises:
            TensorUnusable: another kind or shape, or numbers that no pixel comes to.
        """
        return Item(checked(array, self.info.preprocess), _described(array))

    def _decode_apart(self, name: str, data: bytes) -> Image.Image:
        with self._apart:
            return self._guard.decode(name, data)

    def run(self, items: Sequence[Item]) -> list[Row]:
        """One call of the engine: a row for each item.

        Raises:
            EngineError: the engine failed, or gave something else than one row of finite numbers an item.
        """
        kinds = {item.pixels.dtype for item in items}
        if len(kinds) > 1:  # pixels and tensors that met in one batch
            return self._run_apart(items)
        features = any(item.features for item in items)
        with self._busy as others:
            found = self._engine.run(np.stack([item.pixels for item in items]), alone=not others, features=features)
        logits = found.logits
        if logits.shape != (len(items), self.info.num_classes):
            raise EngineError(f"the engine gave {logits.shape} for {len(items)} images of {self.info.num_classes} classes")
        if not (
            np.isfinite(logits).all() and np.isfinite(found.attention).all()
        ):  # pixels are always finite: the fault is the engine's, and its watchdog must learn so
            raise EngineError(f"the engine gave numbers that are not finite for {len(items)} images")
        maps = found.features if found.features is not None else [None] * len(items)
        return [
            Row(row, attention, seen if item.features else None)
            for item, row, attention, seen in zip(items, logits, found.attention, maps, strict=True)
        ]

    def _run_apart(self, items: Sequence[Item]) -> list[Row]:
        """A call of the engine for each kind of input."""
        rows: dict[int, Row] = {}
        for kind in (np.uint8, np.float32):
            places = [i for i, item in enumerate(items) if item.pixels.dtype == kind]
            rows.update(zip(places, self.run([items[i] for i in places]), strict=True))
        return [rows[i] for i in range(len(items))]

    def top_k(self, row: Row, k: int, function: ScoreFunction = "softmax") -> tuple[Prediction, ...]:
        """The k best classes of a row.

        Raises:
            EngineError: logits that are not finite.
        """
        return top_k(row.logits, k, self.info.labels, function)

    def scores(self, row: Row, function: ScoreFunction) -> npt.NDArray[np.float32]:
        """The scores of every class, in the order of their indices: (num_classes,).

        Raises:
            EngineError: logits that are not finite.
        """
        return scores_of(row.logits, function).astype(np.float32)

    def attention(self, row: Row) -> KernelAttention:
        """What the units chose for the image of a row: out of the same pass as its logits."""
        return kernel_attention(row.attention, self._units, self.info.arguments)

    def explain_items(self, data: bytes) -> tuple[Item, ...]:
        """The passes that an explanation needs: the ordinary one, equal to that of `prepare`, then the enlarged ones.

        Raises: as `prepare`.
        """
        spec = self.info.preprocess
        with self._busy:
            image, what = decode(data, self._limits, self._decode_apart)  # its own pixels: a crop of a reduced one has fewer
            whole = (0.0, 0.0, float(what.width), float(what.height))
            if self._exact:
                first = Item(pixels(image, spec), what)
            elif what.format == "JPEG":  # which `prepare` decodes smaller
                first = self.prepare(data)
            else:
                first = Item(quick_pixels(image, spec, (what.width, what.height), whole), what)
            larger = [self._enlarged(image, what, scale) for scale in SCALES[1:]]
        return (replace(first, features=True), *larger)

    def _enlarged(self, image: Image.Image, what: ImageInfo, scale: float) -> Item:
        spec, cut = self.info.preprocess, centre(image, scale)
        if self._exact:
            return Item(pixels(cut, spec), what, scale)
        return Item(quick_pixels(cut, spec, cut.size, (0.0, 0.0, float(cut.width), float(cut.height))), what, scale)

    def explanation(self, items: Sequence[Item], rows: Sequence[Row], *, k: int, class_index: int | None) -> Explanation:
        """What the rows of `explain_items` say, with the map of one class, by default the first of the ranking.

        Raises:
            EngineError: logits that are not finite, or no features.
        """
        size = items[0].image.width, items[0].image.height
        boxes = [seen_of(size, item.scale, self.info.preprocess) for item in items]
        attention = [self.attention(row) for row in rows]
        rankings = [self.top_k(row, k) for row in rows]
        return Explanation(
            image=items[0].image,
            predictions=rankings[0],
            attention=attention[0],
            scales=tuple(
                ScaleAttention(item.scale, ranking, each.units, box)
                for item, ranking, each, box in zip(items, rankings, attention, boxes, strict=True)
            ),
            activation=self._activation(rows[0], rankings[0][0].index if class_index is None else class_index, boxes[0]),
        )

    def check_figures(self) -> None:
        """Say before any work whether there can be a figure.

        Raises:
            FiguresUnavailable: the plotting library is not installed.
        """
        plots.require()

    def figure(self, data: bytes, explanation: Explanation, form: str = "png") -> bytes:
        """The explanation as one picture for people: a file of one of `model.plots.FORMS`.

        Raises:
            ImageError, DecoderUnavailable: as `prepare`.
            FiguresUnavailable, DrawingUnavailable, DrawingFailed: as `model.drawing.Drawings.figure`.
        """
        picture = decode_reduced(data, self._limits, least_drawn, self._guard.decode)
        return self._drawings.figure(picture.image, explanation, Maker(self.info.variant, self.info.digest), form)

    def overlay(self, data: bytes, explanation: Explanation) -> bytes:
        """The image in its own size and orientation with the map over it: PNG.

        Raises:
            ImageError, DecoderUnavailable: as `prepare`.
        """
        image, _ = decode(data, self._limits, self._guard.decode)
        return overlay_png(image, explanation.activation)

    def _activation(self, row: Row, index: int, box: Box) -> ClassActivation:
        if row.features is None:
            raise EngineError("the engine gave no features, without which there is no class activation map")
        head = self._engine.head
        chosen = next(each for each in self.top_k(row, self.info.num_classes) if each.index == index)
        values = class_activation(row.features, head.weight[index])
        return ClassActivation(chosen, float(row.logits[index]), float(head.bias[index]), values, box)

    def close(self) -> None:
        """Give the memory back."""
        self._drawings.close()
        self._guard.close()
        self._engine.close()


def _described(array: npt.NDArray[Any]) -> ImageInfo:
    height, width = array.shape[:2] if array.dtype == np.uint8 else array.shape[1:]
    return ImageInfo(width, height, f"{array.dtype} array")


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
