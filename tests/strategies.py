"""Hypothesis strategies: images of every mode, format and shape, their metadata, damaged files, bytes, preprocessing specs."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import ExifTags, Image

from model.preprocess import CROP_MODES, INTERPOLATIONS
from model.types import PreprocessSpec
from tests.images import SAMPLES, encode, photograph

# What each format can store without being converted first.
MODES: dict[str, tuple[str, ...]] = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("L", "RGB", "RGBA"),
    "GIF": ("1", "L", "P", "RGB"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"),
    "AVIF": ("L", "RGB", "RGBA"),
}


# The longest side that each format's encoder here takes at once and its decoder gives back.
SIDES: dict[str, int] = {
    "JPEG": 65_500, "PNG": 65_535, "WEBP": 16_383, "GIF": 65_535, "BMP": 65_535, "TIFF": 65_535, "AVIF": 2_000, "HEIC": 2_000,
}  # fmt: skip


@cache
def sample(name: str) -> bytes:
    """A small photograph in the format: the intact file that damage starts from."""
    return SAMPLES[name](photograph(size=(48, 40)))


@st.composite
def images(draw: st.DrawFn, modes: tuple[str, ...] = ("RGB",), max_side: int = 24) -> Image.Image:
    """Random pixels of one of the modes, 1 to `max_side` pixels a side."""
    mode = draw(st.sampled_from(modes))
    width, height = draw(st.tuples(st.integers(1, max_side), st.integers(1, max_side)))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if mode == "I;16":
        return Image.fromarray(noise.integers(0, 65536, (height, width), dtype=np.uint16))
    if mode == "P":
        return Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8)).quantize(16)
    if mode in ("1", "I", "F"):
        return Image.fromarray(noise.integers(0, 256, (height, width), dtype=np.uint8)).convert(mode)
    return Image.frombytes(mode, (width, height), noise.bytes(width * height * len(Image.new(mode, (1, 1)).getbands())))


@st.composite
def encoded_images(draw: st.DrawFn) -> tuple[str, Image.Image, bytes]:
    """(format, the image, its bytes) over every format and the modes it stores."""
    name = draw(st.sampled_from(sorted(MODES)))
    image = draw(images(MODES[name]))
    return name, image, encode(image, name)


@st.composite
def extreme_images(draw: st.DrawFn) -> tuple[str, tuple[int, int], bytes]:
    """(format, size, bytes) of pictures of one pixel, of one row or column up to the longest there is, and in between."""
    name = draw(st.sampled_from(sorted(SIDES)))
    long = draw(st.sampled_from((1, 2, 255, SIDES[name] - 1, SIDES[name])) | st.integers(1, SIDES[name]))
    short = draw(st.sampled_from((1, 2, 3)))
    size = draw(st.sampled_from(((long, short), (short, long))))
    return name, size, _plain(name, size)


@lru_cache(maxsize=64)
def _plain(name: str, size: tuple[int, int]) -> bytes:
    return SAMPLES[name](Image.new("RGB", size, (90, 120, 200)))


@st.composite
def dressed_images(draw: st.DrawFn) -> tuple[str, int, bytes]:
    """(format, EXIF orientation, bytes): a picture of 48 x 32 once it is upright, among other metadata, in order or not."""
    name = draw(st.sampled_from(("JPEG", "PNG", "WEBP", "TIFF", "AVIF")))
    orientation = draw(st.integers(1, 8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for tag in draw(st.lists(st.sampled_from((0x010E, 0x010F, 0x0131, 0x013B, 0x8298)), unique=True)):
        exif[tag] = draw(st.text(st.characters(max_codepoint=126), max_size=40))
    if draw(st.booleans()):
        exif.get_ifd(ExifTags.IFD.Exif)[0x9286] = draw(st.binary(max_size=40))  # a comment by the user
    options: dict[str, Any] = {"icc_profile": draw(st.binary(min_size=1, max_size=400))} if draw(st.booleans()) else {}
    if name != "TIFF" and draw(st.booleans()):
        options["xmp"] = draw(st.binary(max_size=100))
    size = (32, 48) if orientation > 4 else (48, 32)
    return name, orientation, encode(Image.new("RGB", size, (90, 120, 200)), name, exif=exif, **options)


@st.composite
def damaged_images(draw: st.DrawFn, names: tuple[str, ...] = tuple(sorted(SAMPLES))) -> bytes:
    """A good file of one of the formats, then cut off, or with bytes overwritten, removed or doubled."""
    data = bytearray(sample(draw(st.sampled_from(names))))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("cut", "overwrite", "remove", "double"))):
            case "cut":
                del data[start:]
            case "overwrite":
                patch = draw(st.binary(min_size=1, max_size=8))
                data[start : start + len(patch)] = patch
            case "remove":
                del data[start : start + draw(st.integers(1, 64))]
            case "double":
                data[start:start] = data[start : start + draw(st.integers(1, 64))]
    return bytes(data)


@st.composite
def disguised_bytes(draw: st.DrawFn) -> bytes:
    """Arbitrary bytes, often behind the first bytes of a real file."""
    head = draw(st.sampled_from(sorted(SAMPLES)).map(sample) | st.just(b""))
    return head[: draw(st.integers(0, 64))] + draw(st.binary(max_size=512))


def specs() -> st.SearchStrategy[PreprocessSpec]:
    """Small preprocessing specs of every crop mode and filter, square and not."""
    side = st.integers(8, 40)
    return st.builds(
        PreprocessSpec,
        size=st.tuples(side, side) | side.map(lambda n: (n, n)),
        crop_pct=st.sampled_from((0.5, 0.875, 0.95, 1.0)),
        crop_mode=st.sampled_from(CROP_MODES),
        interpolation=st.sampled_from(sorted(INTERPOLATIONS)),
    )
