"""The centre of a picture, enlarged: a crop of its own pixels, which the ordinary preprocessing then scales.

Section 4.4 of Li et al., "Selective Kernel Networks" (CVPR 2019) enlarges the central object so, to see what larger ones choose.
"""

from __future__ import annotations

from PIL import Image

from model.preprocess import seen
from model.types import Box, PreprocessSpec


def centre(image: Image.Image, scale: float) -> Image.Image:
    """The middle of an image, 1 / `scale` of each side, in whole pixels and at least one."""
    return image.crop(edges(image.size, scale))


def edges(size: tuple[int, int], scale: float) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of that middle in an image of `size` (width, height)."""
    width, height = (max(1, round(side / scale)) for side in size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def seen_of(size: tuple[int, int], scale: float, spec: PreprocessSpec) -> Box:
    """Which part of an image of `size` (width, height) the network sees with its centre enlarged; in the image's pixels."""
    left, top, right, bottom = edges(size, scale)
    box = seen((right - left, bottom - top), spec)
    return Box(box.left + left, box.top + top, box.right + left, box.bottom + top)
