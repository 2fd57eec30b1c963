"""Intact files of every supported format in the ways that it is written in: what damage starts from, and what must stay right."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from model.image import readable
from tests.images import bmp_rle, chunk, encode, heic, png, tiff

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Source:
    """An intact file: its format as the service names it, the way it is written in, its bytes."""

    format: str
    variant: str
    data: bytes


def sources(size: tuple[int, int] = (64, 48)) -> tuple[Source, ...]:
    """One file for each way; `size` is the width and height of the picture, at least 16 each."""
    image = picture(size)
    makers = (_jpeg, _png, _webp, _gif, _bmp, _tiff, _avif, _heic)
    found = [Source(maker.__name__[1:].upper(), variant, data) for maker in makers for variant, data in maker(image)]
    return tuple(source for source in found if readable(source.format))


def picture(size: tuple[int, int]) -> Image.Image:
    """Something with edges, slopes and grain, the same each time."""
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    grain = np.random.default_rng(4).normal(0, 8, (height, width, 3))
    samples = np.stack([across, down, np.where((across > 128) ^ (down > 128), 220, 40)], axis=-1) + grain
    return Image.fromarray(samples.clip(0, 255).astype(np.uint8))


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "camera"
    return exif


def _profile() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]  # without the time at which it was made


def _frames(image: Image.Image) -> dict[str, Any]:
    turned = [image.transpose(Image.Transpose.ROTATE_180), image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return {"save_all": True, "append_images": turned, "duration": 40, "loop": 0}


def _jpeg(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "baseline", encode(image, "JPEG", quality=75)
    yield "progressive", encode(image, "JPEG", quality=75, progressive=True)
    yield "cmyk", encode(image.convert("CMYK"), "JPEG", quality=75)
    yield "gray", encode(image.convert("L"), "JPEG", quality=75)
    yield "full-chroma", encode(image, "JPEG", quality=90, subsampling=0, optimize=True)
    yield "restarts", encode(image, "JPEG", quality=75, restart_marker_blocks=2)
    yield "exif", encode(image, "JPEG", quality=60, exif=_exif(), icc_profile=_profile(), comment=b"a comment")


def _png(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    samples = np.asarray(image)
    gray = np.asarray(image.convert("L"))
    yield "rgb", encode(image, "PNG", icc_profile=_profile(), exif=_exif())
    yield "palette", encode(image.quantize(16), "PNG", transparency=3)
    yield "gray-16", encode(Image.fromarray(gray.astype(np.uint16) * 257), "PNG")
    yield "rgb-16", png(samples.astype(np.uint16) * 257, depth=16)
    yield "one-bit", encode(image.convert("1"), "PNG")
    yield "alpha", encode(_with_alpha(image), "PNG")
    yield "interlaced", interlaced(gray)
    yield "animated", encode(image, "PNG", **_frames(image))
    yield (
        "text",
        png(samples, chunks=chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"words " * 50)) + chunk(b"tEXt", b"Title\0x")),
    )


def interlaced(gray: Pixels) -> bytes:
    """A gray PNG in the seven passes of Adam7 (PNG, section 8.2), which Pillow does not write."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [gray[top::down, left::across] for left, top, across, down in passes]
    raw = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", gray.shape[1], gray.shape[0], 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def _webp(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "lossy", encode(image, "WEBP", quality=75)
    yield "lossless", encode(image, "WEBP", lossless=True)
    yield "palette", encode(image.quantize(8).convert("RGB"), "WEBP", lossless=True)
    yield "alpha", encode(_with_alpha(image), "WEBP", quality=75)
    yield "animated", encode(image, "WEBP", **_frames(image))
    yield "exif", encode(image, "WEBP", quality=75, exif=_exif(), icc_profile=_profile())


def _gif(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "interlaced", encode(image.quantize(64), "GIF")
    yield "rows", encode(image.quantize(16), "GIF", interlace=0)
    yield "transparent", encode(image.quantize(16), "GIF", transparency=2, comment=b"a comment")
    yield "animated", encode(image.quantize(16), "GIF", **_frames(image.quantize(16)))


def _bmp(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "rgb", encode(image, "BMP")
    yield "palette", encode(image.quantize(16), "BMP")
    yield "one-bit", encode(image.convert("1"), "BMP")
    yield "alpha", encode(_with_alpha(image), "BMP")
    gray = np.asarray(image.convert("L"))
    runs = b"".join(b"".join(bytes((1, int(v))) for v in row) + b"\0\0" for row in gray[::-1]) + b"\0\1"
    yield "rle", bmp_rle(image.width, image.height, runs)
    literal = b"".join(bytes((0, image.width)) + row.tobytes() + bytes(image.width % 2) + b"\0\0" for row in gray[::-1])
    yield "rle-literal", bmp_rle(image.width, image.height, literal + b"\0\1")


def _tiff(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    for compression in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "lzma", "zstd"):
        yield compression.removeprefix("tiff_").replace("_", "-"), encode(image, "TIFF", compression=compression)
    yield "fax", encode(image.convert("1"), "TIFF", compression="group4")
    yield "predictor", encode(image, "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    yield "palette", encode(image.quantize(16), "TIFF", compression="tiff_lzw")
    yield "cmyk", encode(image.convert("CMYK"), "TIFF")
    yield "big", encode(image, "TIFF", big_tiff=True, compression="tiff_lzw")
    yield "pages", encode(image, "TIFF", save_all=True, append_images=[image, image], compression="tiff_lzw")
    yield "exif", encode(image, "TIFF", exif=_exif(), icc_profile=_profile())
    gray = np.asarray(image.convert("L"))
    yield "gray-16", tiff(gray.astype(np.uint16) * 257)
    yield "gray-12", tiff(gray[:, : gray.shape[1] // 2 * 2].astype(np.uint16) * 16, bits=12)
    yield "float", tiff(gray.astype(np.float32) / 255)
    yield "tiles", tiled(gray)


def tiled(gray: Pixels, side: int = 16) -> bytes:
    """A gray big-endian TIFF in tiles, which Pillow does not write."""
    height, width = gray.shape
    padded = np.pad(gray, ((0, -height % side), (0, -width % side)))
    tops, lefts = range(0, padded.shape[0], side), range(0, padded.shape[1], side)
    tiles = [padded[top : top + side, left : left + side].tobytes() for top in tops for left in lefts]
    count = len(tiles)
    tables_at = 8 + 2 + 12 * 9 + 4
    body_at = tables_at + 8 * count
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (322, side), (323, side)]
    packed = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in entries)
    packed += struct.pack(">HHII", 324, 4, count, tables_at) + struct.pack(">HHII", 325, 4, count, tables_at + 4 * count)
    offsets = struct.pack(f">{count}I", *(body_at + i * side * side for i in range(count)))
    lengths = struct.pack(f">{count}I", *(side * side for _ in tiles))
    return b"MM\0*" + struct.pack(">IH", 8, 9) + packed + bytes(4) + offsets + lengths + b"".join(tiles)


def _avif(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "lossy", encode(image, "AVIF", quality=60)
    yield "alpha", encode(_with_alpha(image), "AVIF", quality=60)
    yield "animated", _untimed(encode(image, "AVIF", quality=60, **_frames(image)))
    yield "exif", encode(image, "AVIF", quality=60, exif=_exif())


def _untimed(data: bytes) -> bytes:
    """A movie without the time at which it was made, which stands behind version and flags of three of its boxes."""
    for name in (b"mvhd", b"tkhd", b"mdhd"):
        at = data.find(name) + 4
        length = 16 if data[at] else 8
        data = data[: at + 4] + bytes(length) + data[at + 4 + length :]
    return data


def _heic(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "lossy", heic(image, quality=60)
    yield "alpha", heic(_with_alpha(image), quality=60)
    yield "exif", heic(image, quality=60, exif=_exif().tobytes())


def _with_alpha(image: Image.Image) -> Image.Image:
    found = image.copy()
    found.putalpha(Image.linear_gradient("L").resize(image.size))
    return found
