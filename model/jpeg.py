"""A JPEG decoded at a half, a quarter or an eighth of its size: the transform gives a smaller picture for less work.

Pixel (x, y) of the smaller picture covers the stored pixels from (n*x, n*y) up to (n*(x + 1), n*(y + 1)); where n does not
divide a side, its last row or column reaches beyond the picture. So a smaller picture comes with its extent: where in it the
whole picture lies.

This file knows nothing of other formats, of limits, or of what the pixels are for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

# (width, height) of an upright picture in pixels -> the least (width, height) that it may be decoded at.
Least: TypeAlias = Callable[[int, int], tuple[int, int]]
Extent: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the decoded picture

_DIVISORS = (8, 4, 2)  # what Pillow's `draft` offers
_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF orientations that swap the axes
_FROM_THE_RIGHT = (2, 3, 6, 7)  # those that bring the end of a stored axis to the left
_FROM_BELOW = (3, 4, 7, 8)  # ... and to the top


def reduce(image: Any, data: bytes, orientation: int, least: Least) -> int:
    """Have an opened and not yet loaded `JpegImageFile` decode at 1/n of its size; return n, one of 1, 2, 4, 8.

    `data` is the file, `orientation` its EXIF orientation. What would be an error stays one, and of the same type.
    """
    if not _transformed(image, data):
        return 1
    width, height = upright(image.size, orientation)
    least_width, least_height = least(width, height)
    n = next((n for n in _DIVISORS if width // n >= least_width and height // n >= least_height), 1)
    if n > 1:  # no mode is asked for: the colours are converted as they would be at full size
        image.draft(None, (image.width // n, image.height // n))
    return n


def upright(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) of a stored picture once it is turned as its EXIF orientation says."""
    return stored[::-1] if orientation in _ON_ITS_SIDE else stored


def extent(stored: tuple[int, int], n: int, orientation: int) -> Extent:
    """Where in the upright picture, decoded at 1/n, the whole picture of `stored` (width, height) lies.

    The part of the last row and column beyond the picture comes first once the picture is turned round. All exact: n is a
    power of two.
    """
    width, height = upright(stored, orientation)
    left = -(-width // n) - width / n if orientation in _FROM_THE_RIGHT else 0.0
    top = -(-height // n) - height / n if orientation in _FROM_BELOW else 0.0
    return left, top, left + width / n, top + height / n


def _transformed(image: Any, data: bytes) -> bool:
    """Whether the picture is made of transformed blocks; a lossless JPEG is not, and would fail at a reduced size."""
    # Pillow has stopped behind the first scan's header, which ends with three bytes: the first coefficient, the last one, and
    # their bits. A scan of blocks begins with the coefficient 0; a lossless one has its predictor there, 1 to 7.
    return bool(data[image.fp.tell() - 3] == 0)
