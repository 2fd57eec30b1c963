"""Images made on the spot: the bytes of every format and mode that is read, and of some that are not."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import ExifTags, Image

RED, GREEN, BLUE, WHITE, GRAY = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)


def encode(image: Image.Image, name: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def solid(size: tuple[int, int] = (16, 12), colour: Any = RED, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def photograph(name: str = "chelsea", size: tuple[int, int] | None = None) -> Image.Image:
    """A photograph that scikit-image carries in its package: chelsea (451x300, a cat), astronaut (512x512), coffee (600x400)."""
    import skimage.data  # here, so that what makes images of its own does without it

    image = Image.fromarray(getattr(skimage.data, name)())
    return image if size is None else image.resize(size, Image.Resampling.BICUBIC)


def heic(image: Image.Image, **options: Any) -> bytes:
    pillow_heif.register_heif_opener()  # for `save`; the code under test does not go through Pillow's registry
    return encode(image, "HEIF", **{"quality": 90, **options})


def gif(image: Image.Image, **options: Any) -> bytes:
    return encode(image, "GIF", **options)


def animation(name: str) -> bytes:
    """Three frames: red, green, blue."""
    frames = [solid(colour=colour) for colour in (RED, GREEN, BLUE)]
    options: dict[str, Any] = {"lossless": True} if name == "WEBP" else {"quality": 100} if name == "AVIF" else {}
    return encode(frames[0], name, save_all=True, append_images=frames[1:], **options)


SAMPLES: dict[str, Callable[[Image.Image], bytes]] = {  # one file of each format from the same picture
    "JPEG": lambda image: encode(image, "JPEG", quality=95),
    "PNG": lambda image: encode(image, "PNG"),
    "WEBP": lambda image: encode(image, "WEBP", quality=95),
    "GIF": lambda image: gif(image.quantize(64)),
    "BMP": lambda image: encode(image, "BMP"),
    "TIFF": lambda image: encode(image, "TIFF", compression="tiff_lzw"),
    "AVIF": lambda image: encode(image, "AVIF", quality=95),
    "HEIC": heic,
}


def quadrants(size: tuple[int, int] = (48, 32)) -> Image.Image:
    """No two corners alike: red, green / blue, white from the top left."""
    width, height = size
    image = solid(size)
    for colour, corner in ((GREEN, (width // 2, 0)), (BLUE, (0, height // 2)), (WHITE, (width // 2, height // 2))):
        image.paste(colour, (*corner, corner[0] + width // 2, corner[1] + height // 2))
    return image


# How a camera stores an upright picture so that the EXIF orientation turns it back: the inverse of what a reader does.
_STORE = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def oriented(upright: Image.Image, orientation: int, name: str = "PNG", **options: Any) -> bytes:
    """The picture stored turned, with the EXIF orientation that says so."""
    method = _STORE[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = upright if method is None else upright.transpose(method)
    return heic(stored, exif=exif.tobytes(), **options) if name == "HEIC" else encode(stored, name, exif=exif, **options)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    samples: NDArray[Any], *, depth: int = 8, colour: int = 2, chunks: bytes = b"", size: tuple[int, int] | None = None
) -> bytes:
    """A PNG written by hand: what Pillow cannot write. `samples` (H, W[, C]); several samples a byte below a depth of 8.

    `colour` as in the specification: 0 gray, 2 RGB, 3 palette, 4 gray with alpha, 6 RGBA. `size` lies about (width, height).
    """
    height, width = samples.shape[:2]
    if depth < 8:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., -depth:].reshape(height, -1)
        rows = np.packbits(bits, axis=-1)
    else:
        rows = samples.reshape(height, -1).astype(">u2" if depth == 16 else np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", *(size or (width, height)), depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunks + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_of_pixels(width: int, height: int) -> bytes:
    """A real, complete one-bit PNG: 60 megapixels in some 7 kB."""
    row = b"\0" + b"\xff" * ((width + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def gif_bomb(width: int = 65_535, height: int = 65_535) -> bytes:
    """A GIF of a few bytes that asks for a canvas of 4 gigapixels."""
    small = gif(solid((2, 2)).quantize(2))
    return small[:6] + struct.pack("<HH", width, height) + small[10:]


def webp_bomb(kind: bytes, width: int, height: int) -> bytes:
    """A small WebP of the kind (lossy VP8, lossless VP8L, extended VP8X) whose header asks for more."""
    small = {
        b"VP8 ": lambda: encode(solid(), "WEBP"),
        b"VP8L": lambda: encode(solid(), "WEBP", lossless=True),
        b"VP8X": lambda: animation("WEBP"),
    }
    data = bytearray(small[kind]())
    assert data[12:16] == kind
    match kind:
        case b"VP8 ":
            data[26:30] = struct.pack("<HH", width, height)
        case b"VP8L":
            data[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
        case _:
            data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def bmp_rle(width: int, height: int, body: bytes) -> bytes:
    """An 8-bit run-length BMP with a palette of grays around the given runs."""
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    offset = 14 + 40 + len(palette)
    header = b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset)
    return header + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0) + palette + body


def tiff(samples: NDArray[Any], *, photometric: int = 1, bits: int | None = None, size: tuple[int, int] | None = None) -> bytes:
    """An uncompressed little-endian TIFF written by hand: unsigned, signed and float samples (H, W) or (H, W, C).

    With `bits`, the samples are packed to that many bits each. `size` lies about (width, height).
    """
    width, height = size or (samples.shape[1], samples.shape[0])
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    body = samples.tobytes() if bits is None else _pack(samples, bits)
    depth = bits or samples.dtype.itemsize * 8
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    entries = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [depth] * channels), (259, 3, [1]), (262, 3, [photometric]),
        (273, 4, [0]), (277, 3, [channels]), (278, 4, [height]), (279, 4, [len(body)]), (339, 3, [kind] * channels),
    ]  # fmt: skip
    extra_at = 8 + 2 + 12 * len(entries) + 4
    directory, extra = struct.pack("<H", len(entries)), b""
    extra_bytes = sum(2 * len(v) for _, t, v in entries if t == 3 and len(v) > 2)
    for tag, type_, values in entries:
        packed = struct.pack(f"<{len(values)}{'H' if type_ == 3 else 'I'}", *values)
        if tag == 273:
            packed = struct.pack("<I", extra_at + extra_bytes)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", extra_at + len(extra)), extra + packed
        directory += struct.pack("<HHI", tag, type_, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", 8) + directory + b"\0\0\0\0" + extra + body


def _pack(samples: NDArray[Any], bits: int) -> bytes:
    wide = np.unpackbits(samples.astype(">u2")[..., None].view(np.uint8), axis=-1)[..., -bits:]
    return np.packbits(wide.reshape(samples.shape[0], -1), axis=-1).tobytes()
