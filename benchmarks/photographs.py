"""The photographs that are sent: real ones, near the sizes that the published figures were measured with."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

SMALL, SMALL_BYTES = (500, 300), 176_000
LARGE, LARGE_BYTES = (4000, 3000), 1_900_000  # 12 megapixels


@dataclass(frozen=True)
class Photographs:
    """Encoded JPEGs: as they are sent, and the same scenes at 12 megapixels."""

    names: tuple[str, ...]
    small: tuple[bytes, ...]
    large: tuple[bytes, ...]


def photographs(files: Sequence[Path], count_large: int = 4) -> Photographs:
    """Those files as they are; without any, the photographs that scikit-image carries, brought to `SMALL`."""
    if files:
        names = tuple(path.name for path in files)
        small = tuple(path.read_bytes() for path in files)
        images = [Image.open(io.BytesIO(data)).convert("RGB") for data in small[:count_large]]
    else:
        scenes = _packaged()
        names, images = tuple(scenes), list(scenes.values())
        small = tuple(encode(image, SMALL, SMALL_BYTES) for image in images)
    return Photographs(names, small, tuple(encode(image, LARGE, LARGE_BYTES) for image in images[:count_large]))


def encode(image: Image.Image, size: tuple[int, int], near_bytes: int) -> bytes:
    """Crop and resize to `size` (width, height), with the JPEG quality whose size is nearest to `near_bytes`."""
    fitted = ImageOps.fit(image, size, Image.Resampling.LANCZOS)

    def at(quality: int) -> bytes:
        out = io.BytesIO()
        fitted.save(out, "JPEG", quality=quality)
        return out.getvalue()

    return nearest(at, near_bytes, 30, 100)


def nearest(at: Callable[[int], bytes], near_bytes: int, low: int, high: int) -> bytes:
    """By halving, since the size grows with the quality."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(at(middle)) < near_bytes else (low, middle)
    return min((at(low), at(high)), key=lambda data: abs(len(data) - near_bytes))


def _packaged() -> dict[str, Image.Image]:
    from skimage import data

    found = {name: Image.fromarray(getattr(data, name)()) for name in ("chelsea", "coffee", "astronaut", "hubble_deep_field")}
    return {**found, "motorcycle": Image.fromarray(data.stereo_motorcycle()[0])}
