"""Hypothesis strategies: small images of every mode and format, damaged files, arbitrary bytes, preprocessing specs."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import strategies as st
from PIL import Image

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
def damaged_images(draw: st.DrawFn) -> bytes:
    """A good file of some format, then cut off, or with bytes overwritten, removed or doubled."""
    data = bytearray(sample(draw(st.sampled_from(sorted(SAMPLES)))))
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
