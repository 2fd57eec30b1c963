"""The golden image of a checkpoint: one small picture in its card whose answer is known, asked for before the model serves.

    "golden": {"image": "<base64 of a PNG>", "index": 3, "label": "cat", "score": 0.92, "tolerance": 0.05}

It goes the way of any request, so that weights, labels, preprocessing and engine are right together, not each by itself. Knows
nothing of where a card comes from; cards of strangers cannot make it heavy.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from model.errors import CheckpointCorrupt, CheckpointMismatch, ImageError
from model.image import ImageLimits

if TYPE_CHECKING:
    from model.types import Label, Prediction

MAX_CHARACTERS = 65_536  # of base64
MAX_SIDE = 512  # pixels
MAX_TOLERANCE = 0.5
LIMITS = ImageLimits(max_pixels=MAX_SIDE**2, formats=("PNG",))  # its own: those of requests may be narrower
_PNG = b"\x89PNG\r\n\x1a\n"


class Asked(Protocol):
    """A model, as far as this goes."""

    def prepare(self, data: bytes) -> Any: ...
    def run(self, items: Sequence[Any]) -> Sequence[Any]: ...
    def top_k(self, row: Any, k: int) -> tuple[Prediction, ...]: ...


@dataclass(frozen=True, slots=True)
class Golden:
    """A PNG, the class that must come first, and its score, 0..1, give or take `tolerance`."""

    image: bytes
    index: int
    score: float
    tolerance: float


def golden_of(card: Mapping[str, Any], labels: Sequence[Label] | None) -> Golden | None:
    """What a card says of it; None where it says nothing.

    Args:
        labels: of the classes, as the card has them; None where others took their place, which then are not compared.

    Raises:
        CheckpointCorrupt: a field that is missing or makes no sense, or a picture beyond the limits.
        CheckpointMismatch: the class has another name in the labels.
    """
    fields = card.get("golden")
    if fields is None:
        return None
    if not isinstance(fields, dict):
        raise CheckpointCorrupt("the card's golden must be a JSON object")
    index, label = fields.get("index"), fields.get("label")
    if type(index) is not int or index < 0 or (labels is not None and index >= len(labels)):
        raise CheckpointCorrupt(f"the card's golden.index is {index!r}: give the number of a class")
    if labels is not None and label != labels[index].name:
        raise CheckpointMismatch(f"the card's golden image shows {label!r}, but class {index} is {labels[index].name!r}")
    score = _number(fields, "score", 1.0)
    tolerance = _number(fields, "tolerance", MAX_TOLERANCE)
    return Golden(_png(fields.get("image")), index, score, tolerance)


def verify(golden: Golden, model: Asked) -> None:
    """Ask the model.

    Raises:
        CheckpointCorrupt: the picture cannot be read.
        CheckpointMismatch: another answer.
        EngineError: the engine failed.
    """
    try:
        item = model.prepare(golden.image)
    except ImageError as error:
        raise CheckpointCorrupt(f"the golden image cannot be read: {error}") from error
    first = model.top_k(model.run([item])[0], 1)[0]
    if first.index != golden.index or abs(first.score - golden.score) > golden.tolerance:
        raise CheckpointMismatch(
            f"the golden image comes out as class {first.index} at {first.score:.3f}; its card says "
            f"class {golden.index} at {golden.score:.3f}, give or take {golden.tolerance:g}"
        )


def _number(fields: Mapping[str, Any], name: str, most: float) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise CheckpointCorrupt(f"the card's golden.{name} is {str(value)[:40]}: give a number above 0, up to {most:g}")
    return float(value)


def _png(text: object) -> bytes:
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
        raise CheckpointCorrupt(f"the card's golden.image must be base64, at most {MAX_CHARACTERS} characters")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CheckpointCorrupt("the card's golden.image is no valid base64") from error
    # PNG, sections 5.2 and 11.2.1: the signature, then the length and name of the header, then the two sides.
    if len(data) < 24 or not data.startswith(_PNG) or data[12:16] != b"IHDR":
        raise CheckpointCorrupt("the card's golden.image is no PNG")
    width, height = struct.unpack(">II", data[16:24])
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise CheckpointCorrupt(f"the card's golden.image is {width} x {height} pixels; at most {MAX_SIDE} a side are allowed")
    return data
