"""Any bytes as an image: decoded whole and reduced, then made ready by both paths. Only `ImageError` may come out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from model.errors import ImageError
from model.image import ImageLimits, Picture, decode_reduced
from model.preprocess import pixels, quick_pixels
from model.types import PreprocessSpec
from tests.corpus import sources

LIMITS = ImageLimits(max_pixels=1_000_000)  # large enough for every branch, small enough for many runs a second
SPEC = PreprocessSpec(size=(32, 32))


def seeds() -> Iterator[bytes]:
    """Every intact file that the corpus of broken ones starts from, with a picture of few bytes."""
    return (source.data for source in sources(size=(24, 18)))


def check(data: bytes) -> None:
    """What can be decoded is RGB of the size that it says, and becomes the network's input; reduced, it is the same answer."""
    faults: list[str] = []  # raised in there, they would be taken for a damaged file
    with np.errstate(divide="call", over="call", invalid="call", call=lambda fault, _: faults.append(fault)):
        whole, reduced = _decoded(data, 1), _decoded(data, 4)
    assert not faults, faults
    if whole is None or reduced is None:
        assert whole is reduced, "refused at one size only"
        return
    assert (whole.image.mode, reduced.image.mode) == ("RGB", "RGB")
    assert whole.info == reduced.info, (whole.info, reduced.info)
    size = whole.info.width, whole.info.height
    assert whole.image.size == size, (whole.image.size, size)
    assert 0 < size[0] * size[1] <= LIMITS.max_pixels, size
    exact = pixels(whole.image, SPEC)
    quick = quick_pixels(reduced.image, SPEC, size, reduced.extent)
    assert exact.shape == quick.shape == (32, 32, 3)
    assert exact.dtype == quick.dtype == np.uint8


def _decoded(data: bytes, divisor: int) -> Picture | None:
    try:
        return decode_reduced(data, LIMITS, lambda *size: (max(1, size[0] // divisor), max(1, size[1] // divisor)))
    except ImageError:
        return None
