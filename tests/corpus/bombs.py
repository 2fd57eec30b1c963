"""Little files that ask for much: pixels, frames, tables and texts that are thousands of times what was sent."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import cache

from PIL import Image

from tests.corpus.chunks import riff
from tests.corpus.damage import File
from tests.images import chunk, encode, gif_bomb, png_of_pixels, webp_bomb

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TOO_MANY = 60_000_000  # pixels: beyond the service's default limit
MANY = 12_000_000  # within it: must be answered, whatever it costs


def bombs() -> Iterator[File]:
    """Every bomb."""
    for name, data in (*_png(), *_png_texts()):
        yield "PNG", name, data
    for name, data in _gif():
        yield "GIF", name, data
    for kind in (b"VP8 ", b"VP8L", b"VP8X"):
        yield "WEBP", "bomb-size", webp_bomb(kind, 16_383, 16_383)
    yield "WEBP", "bomb-size", webp_bomb(b"VP8X", 1 << 24, 1 << 24)
    frame = struct.pack("<I", 0)[:3] * 2 + bytes(6) + bytes(4)
    yield "WEBP", "bomb-frames", riff([(b"VP8X", bytes((2, *bytes(9)))), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * 50_000])
    for format_, data in _one_colour():
        yield format_, "bomb-colour", data


def _png() -> Iterator[tuple[str, bytes]]:
    for side in (4000, 7500):
        yield "bomb-pixels", png_of_pixels(side, side)
    for width, height in ((64, 48), (7000, 7000), (1, 1)):  # inflates to 200 MB, whatever size is told
        yield "bomb-deflate", _with_header(width, height, _deflated(200_000_000))
    yield "bomb-deflate", _with_header(64, 48, _deflated(10_000_000)[:-8])
    yield "bomb-rows", _with_header(1, 1_000_000, _deflated(4_000_000))
    yield "bomb-rows", _with_header(1_000_000, 1, _deflated(3_000_001))


def _png_texts() -> Iterator[tuple[str, bytes]]:
    picture = _with_header(64, 48, zlib.compress(bytes(48 * (64 * 3 + 1))))
    head, rest = picture[:33], picture[33:]
    packed = _deflated(200_000_000)
    yield "bomb-text", head + chunk(b"zTXt", b"Comment\0\0" + packed) + rest
    yield "bomb-text", head + chunk(b"iTXt", b"Comment\0\1\0\0\0" + packed) + rest
    yield "bomb-text", head + chunk(b"zTXt", b"Comment\0\0" + _deflated(1_000_000)) * 200 + rest
    yield "bomb-text", picture[:-12] + chunk(b"zTXt", b"Comment\0\0" + packed) + picture[-12:]
    yield "bomb-profile", head + chunk(b"iCCP", b"name\0\0" + packed) + rest
    yield "bomb-profile", head + chunk(b"iCCP", b"name\0\0" + _deflated(900_000)) + rest


def _with_header(width: int, height: int, packed: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@cache
def _deflated(count: int) -> bytes:
    """So many zero bytes, a thousandth of that in length."""
    packer, step = zlib.compressobj(1), 10_000_000
    parts = [packer.compress(bytes(min(step, count - at))) for at in range(0, count, step)]
    return b"".join(parts) + packer.flush()


def _gif() -> Iterator[tuple[str, bytes]]:
    yield "bomb-size", gif_bomb()
    yield "bomb-size", gif_bomb(5000, 5000)
    screen = b"GIF89a" + struct.pack("<HHBBB", 4000, 4000, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 4000, 4000, 0)
    longest = _codes([4, *range(6, 4096)], 2)
    yield "bomb-codes", screen + frame + b"\2" + _blocks(longest) + b";"
    yield "bomb-codes", screen + (frame + b"\2" + _blocks(longest)) * 30 + b";"
    yield "bomb-codes", screen + frame + b"\2" + _blocks(_codes([4] * 200_000, 2)) + b";"


def _codes(codes: list[int], least: int) -> bytes:
    """LZW codes as GIF packs them: least significant bit first, ever wider; each of these repeats all before it once more."""
    bits = length = 0
    width, following = least + 1, (1 << least) + 2
    out = bytearray()
    for code in codes:
        bits |= (code & (1 << width) - 1) << length
        length += width
        following += 1
        if code == 1 << least:
            width, following = least + 1, (1 << least) + 2
        elif following > 1 << width and width < 12:
            width += 1
        while length >= 8:
            out.append(bits & 255)
            bits, length = bits >> 8, length - 8
    return bytes(out) + bytes((bits & 255,))


def _blocks(data: bytes) -> bytes:
    return b"".join(bytes((len(data[i : i + 255]),)) + data[i : i + 255] for i in range(0, len(data), 255)) + b"\0"


def _one_colour() -> Iterator[tuple[str, bytes]]:
    """Whole files of one colour, within the limit and beyond it, where the format has a compression to hide it in."""
    within, beyond = Image.new("L", (4000, MANY // 4000), 90), Image.new("1", (10_000, TOO_MANY // 10_000))
    yield "JPEG", encode(within, "JPEG", quality=20)
    yield "JPEG", encode(within, "JPEG", quality=20, progressive=True)
    yield "PNG", encode(within, "PNG")
    yield "WEBP", encode(within.resize((2000, 2000)), "WEBP", lossless=True, quality=0, method=0)
    yield "GIF", encode(within, "GIF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield "TIFF", encode(within, "TIFF", compression=compression)
    yield "TIFF", encode(beyond, "TIFF", compression="group4")
    yield "AVIF", encode(within.resize((1000, 1000)), "AVIF", quality=1, speed=10)
