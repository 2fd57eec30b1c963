"""Lies in formats of offsets and rows: GIF, BMP, TIFF. Screens, palettes, run lengths, directories that go round in circles."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from tests.corpus.damage import File
from tests.corpus.sources import Source
from tests.images import bmp_rle, tiff

SIDES = ((0, 0), (0, 48), (64, 0), (1, 1), (0xFFFF, 0xFFFF), (0xFFFF, 1), (1, 0xFFFF), (64, 5000))
GRAY = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)
LARGEST = 0xFFFFFFFF


def gif_lies(source: Source) -> Iterator[File]:
    """Every lie about one GIF."""
    for kind, data in _gif(source.data):
        yield "GIF", kind, data


def _gif(data: bytes) -> Iterator[tuple[str, bytes]]:
    frame = data.find(b"\x2c\0\0\0\0", 13)
    for width, height in SIDES:
        size = struct.pack("<HH", width, height)
        yield "dimensions", data[:6] + size + data[10:]
        yield "dimensions", data[: frame + 5] + size + data[frame + 9 :]
        yield "offset", data[: frame + 1] + size + data[frame + 5 :]
    for flags in (0x00, 0x07, 0x80, 0x87, 0xFF):
        yield "palette", data[:10] + bytes((flags,)) + data[11:]
        yield "palette", data[: frame + 9] + bytes((flags,)) + data[frame + 10 :]
    code = frame + 10
    for size_of_code in (0, 1, 2, 9, 11, 12, 13, 255):
        yield "code-size", data[:code] + bytes((size_of_code,)) + data[code + 1 :]
    for length in (0, 1, 255):
        yield "lengths", data[: code + 1] + bytes((length,)) + data[code + 2 :]
    body = data[frame:-1]
    yield "frames", data[:-1] + body * 1500 + b";"
    yield "frames", data[:-1] + (b"\x21\xf9\4\0\0\0\0\0" + body[:10] + b"\2\0") * 20_000 + b";"
    yield "tiny-blocks", data[:frame] + b"\x21\xfe\1x\0" * 30_000 + data[frame:]
    yield "tiny-blocks", data[:frame] + b"\x21\xfe" + b"\1x" * 60_000 + b"\0" + data[frame:]
    yield "tiny-blocks", data[: code + 1] + b"\1\0" * 40_000 + b"\0;"
    yield "no-end", data[:-1] + b"\x21\xff\x0bNETSCAPE2.0"
    yield "no-frame", data[:frame] + b";"


def bmp_lies(source: Source) -> Iterator[File]:
    """Every lie about one BMP."""
    for kind, data in _bmp(source.data):
        yield "BMP", kind, data


def _bmp(data: bytes) -> Iterator[tuple[str, bytes]]:
    for width, height in (*SIDES, (-64, 48), (64, -48), (-1, -1), (0x7FFFFFFF, 0x7FFFFFFF), (-0x80000000, 1), (40_000, 40_000)):
        yield "dimensions", data[:18] + struct.pack("<ii", width, height) + data[26:]
    for offset in (0, 1, 13, 54, len(data), LARGEST):
        yield "offset", data[:10] + struct.pack("<I", offset) + data[14:]
    for size in (0, 1, 12, 39, 41, 64, 124, 1000, LARGEST):
        yield "lengths", data[:14] + struct.pack("<I", size) + data[18:]
    for bits in (0, 1, 2, 3, 4, 8, 15, 16, 24, 32, 64, 0xFFFF):
        yield "header", data[:28] + struct.pack("<H", bits) + data[30:]
    for compression in (1, 2, 3, 4, 5, 6, 11, LARGEST):
        yield "header", data[:30] + struct.pack("<I", compression) + data[34:]
    for colours in (1, 257, 65_536, LARGEST):
        yield "palette", data[:46] + struct.pack("<I", colours) + data[50:]


def bmp_runs() -> Iterator[File]:
    """Run-length bodies that leave the picture, never end or hold nothing."""
    for width, height in ((64, 48), (1, 1), (2000, 500)):
        for body in (
            b"",
            b"\0\1",
            b"\xff\7" * 3000,
            b"\0\2\xff\xff" * 3000,
            b"\0\0" * 60_000,
            b"\0\xff" + b"x" * 10,
            b"\0\3" + b"xyz" * 40,
        ):
            yield "BMP", "runs", bmp_rle(width, height, body)
        for repeat in (b"\1\7", b"\0\4wxyz", b"\0\2\0\0", b"\0\0"):
            yield "BMP", "runs", bmp_rle(width, height, repeat * 100_000)


def tiff_lies(source: Source) -> Iterator[File]:
    """Every lie about one TIFF: each entry of its first directory with another type, count and value."""
    order, big = "<" if source.data[:1] == b"I" else ">", source.data[2:4] in (b"+\0", b"\0+")
    if big:
        return
    for kind, data in _tiff(source.data, order):
        yield "TIFF", kind, data


def _tiff(data: bytes, order: str) -> Iterator[tuple[str, bytes]]:
    (at,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, at)
    for i in range(entries):
        where = at + 2 + 12 * i
        tag, type_, count, value = struct.unpack_from(order + "HHII", data, where)
        lies = [(tag, 2, count, value), (tag, 12, count, value), (tag, 99, count, value), (tag, type_, 0, value)]
        lies += [
            (tag, type_, LARGEST, value),
            (tag, type_, 250_000, 8),
            (tag, type_, count, LARGEST),
            (0xFFFF, type_, count, value),
        ]
        lies += [(tag, type_, count, 0), (tag, type_, count, value + 1), (tag, 16, 1, 0)]
        for lie in lies:
            yield "entries", data[:where] + struct.pack(order + "HHII", *lie) + data[where + 12 :]
    behind = at + 2 + 12 * entries
    for following in (at, 4, 0xFFFFFFF0, len(data) - 1):
        yield "loop", data[:behind] + struct.pack(order + "I", following) + data[behind + 4 :]
    for first in (0, 4, len(data), LARGEST):
        yield "offset", data[:4] + struct.pack(order + "I", first) + data[8:]
    for number in (0, 0xFFFF):
        yield "lengths", data[:at] + struct.pack(order + "H", number) + data[at + 2 :]


def tiff_made() -> Iterator[File]:
    """Directories that no writer makes: circles of several, thousands of them, sizes that lie, one strip of everything."""
    for size in (*SIDES, (LARGEST, LARGEST), (0x7FFFFFFF, 2), (10_000, 10_000)):
        yield "TIFF", "dimensions", tiff(GRAY, size=size)
    circle = b"".join(struct.pack("<HHHIII", 1, 256, 4, 1, 1, 8 + 18 * ((i + 1) % 50)) for i in range(50))
    yield "TIFF", "loop", b"II*\0\x08\0\0\0" + circle
    long = b"".join(struct.pack("<HHHIII", 1, 256, 4, 1, 1, 8 + 18 * (i + 1)) for i in range(50_000))
    yield "TIFF", "pages", b"II*\0\x08\0\0\0" + long
    for count in (65_535, 1000):
        yield "TIFF", "tiny-entries", b"II*\0\x08\0\0\0" + struct.pack("<H", count) + struct.pack("<HHII", 270, 2, 4, 0) * count
    for entry in ((330, 4, 1, 8), (34_665, 4, 1, 8), (34_853, 4, 1, 8)):  # sub-directories that are their own parent
        yield "TIFF", "loop", b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", *entry) + b"\x08\0\0\0"
    for at, count in ((8, LARGEST), (16, 1), (1 << 63, 1), ((1 << 64) - 1, 1 << 60)):
        head = b"II+\0\x08\0\0\0" + struct.pack("<QQ", at, count)
        yield "TIFF", "big", head + struct.pack("<HHQQ", 256, 4, 1 << 62, 1 << 63) * 20
