"""A class activation map over its photograph, in the photograph's own size: with Pillow and numpy alone.

The map is signed: evidence for the class is laid on in orange, evidence against it in blue, which no common colour blindness
confuses, and the stronger it is the less of the photograph shows through. Under the map the photograph is gray, so that every
colour there is evidence and a ginger cat is none; outside the part of the image that the network saw it stays as it is. The
strongest cell, of either sign, gets the full colour: how strong that is
stands in the numbers, not in the picture.

Values are interpolated linearly between the centres of the cells, and kept beyond the outermost ones: nothing appears that is
above the highest cell or below the lowest. This file knows nothing of networks, of files or of figures.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.types import Box, ClassActivation

OPACITY = 0.75  # of the strongest evidence
_STRIPE_PIXELS = 500_000  # worked on at a time: some 20 bytes of memory each
_STEPS = 255  # colours of either sign
# Evidence at -1, -1/2, 0, 1/2, 1 of the strongest. Both arms darken evenly: in gray the strength is still there.
_ANCHORS = (
    (-1.0, (0x00, 0x44, 0x88)),
    (-0.5, (0x33, 0x88, 0xCC)),
    (0.0, (0xF2, 0xF2, 0xF2)),
    (0.5, (0xFF, 0xB0, 0x40)),
    (1.0, (0xE0, 0x50, 0x00)),
)
# zlib's fastest that finds repeats at all: four times the speed of the default for a tenth more bytes.
_COMPRESS_LEVEL = 1


@dataclass(frozen=True)
class Field:
    """A map of values that covers `box` of a picture, in its pixels."""

    values: NDArray[np.float32]  # (rows, columns)
    box: Box

    def at(self, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[Any]:
        """The values at positions in pixels: (len(rows), len(columns))."""
        low, high, share = _between(rows, self.box.top, self.box.bottom, self.values.shape[0])
        lines = self.values[low] * (1 - share)[:, None] + self.values[high] * share[:, None]
        low, high, share = _between(columns, self.box.left, self.box.right, self.values.shape[1])
        return lines[:, low] * (1 - share) + lines[:, high] * share


def colours(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """RGB 0..255 (n, 3) of evidence as parts of the strongest, -1..1 (n,)."""
    places = [place for place, _ in _ANCHORS]
    return np.stack([np.interp(parts, places, [rgb[channel] for _, rgb in _ANCHORS]) for channel in range(3)], axis=1)


def strongest(activation: ClassActivation) -> float:
    """The largest absolute value of the map: what the full colour stands for."""
    return float(np.abs(np.asarray(activation.values)).max())


def paint(
    image: Image.Image, activation: ClassActivation, *, scale: tuple[float, float] = (1.0, 1.0), opacity: float = OPACITY
) -> None:
    """Lay the map over an upright RGB image, in place, a stripe at a time.

    Args:
        scale: pixels of `image` for each pixel that the map's box counts in, across and down: sizes are rounded, and of a long
            thin image one of them is far from the other.
        opacity: of the strongest evidence, 0..1.
    """
    peak = strongest(activation)
    if not peak:
        return
    field = Field(np.asarray(activation.values, np.float32) / np.float32(peak), _times(activation.box, scale))
    left, right = _inside(field.box.left, field.box.right, image.width)
    top, bottom = _inside(field.box.top, field.box.bottom, image.height)
    if left >= right:
        return
    table = _table(opacity)
    columns = np.arange(left, right) + 0.5  # a pixel is where its centre is
    height = max(1, _STRIPE_PIXELS // (right - left))
    for start in range(top, bottom, height):
        end = min(start + height, bottom)
        values = field.at(np.arange(start, end) + 0.5, columns)
        place = (left, start, right, end)
        gray = np.asarray(image.crop(place).convert("L"))
        image.paste(Image.fromarray(_mix(gray, values, *table)), place)


def overlay(image: Image.Image, activation: ClassActivation, *, opacity: float = OPACITY) -> Image.Image:
    """The map over a copy of an upright RGB image that has the size the map's box counts in."""
    copy = image.copy()
    paint(copy, activation, opacity=opacity)
    return copy


def overlay_png(image: Image.Image, activation: ClassActivation, *, opacity: float = OPACITY) -> bytes:
    """The same as a PNG. The image itself is painted on: a copy of a large one would be 200 MB."""
    paint(image, activation, opacity=opacity)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_COMPRESS_LEVEL)
    return file.getvalue()


def _times(box: Box, scale: tuple[float, float]) -> Box:
    across, down = scale
    return Box(box.left * across, box.top * down, box.right * across, box.bottom * down)


def _inside(low: float, high: float, size: int) -> tuple[int, int]:
    """The pixels whose centres lie within, or else the one that holds the middle: first, and one behind the last."""
    first, end = max(0, int(np.ceil(low - 0.5))), min(size, int(np.ceil(high - 0.5)))
    middle = (low + high) / 2
    if first >= end and 0 <= middle < size:  # less than a pixel, of a picture made much smaller
        return int(middle), int(middle) + 1
    return first, end


def _between(
    positions: NDArray[Any], low: float, high: float, cells: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Between which two cells' centres each position lies, and how far towards the second."""
    place = np.clip((positions - low) / (high - low) * cells - 0.5, 0, cells - 1)
    first = np.minimum(place.astype(np.intp), max(0, cells - 2))
    return first, np.minimum(first + 1, cells - 1), (place - first).astype(np.float32)


def _table(opacity: float) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """For evidence from -1 to 1 in `_STEPS` steps either side of 0: colour times weight (n, 3), and 255 less the weight (n,)."""
    parts = np.linspace(-1, 1, 2 * _STEPS + 1)
    weights = np.rint(255 * opacity * np.abs(parts))
    return np.rint(colours(parts) * weights[:, None]).astype(np.uint16), (255 - weights).astype(np.uint16)


def _mix(
    gray: NDArray[np.uint8], values: NDArray[Any], colour: NDArray[np.uint16], left: NDArray[np.uint16]
) -> NDArray[np.uint8]:
    steps = np.rint(values * _STEPS + _STEPS).astype(np.int16)
    mixed = colour[steps]
    mixed += (gray * left[steps])[..., None]
    mixed += 127  # to the nearest; 255 * 255 + 127 fits
    mixed //= 255
    return np.asarray(mixed, dtype=np.uint8)
