"""Lies in JPEG: the frame's size and sampling, segments that tell a wrong length, tables that are missing, EXIF without end."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.corpus.damage import File
from tests.corpus.sources import Source

SIDES = ((0, 0), (0, 48), (64, 0), (1, 1), (65_535, 65_535), (65_535, 1), (1, 65_535), (65_500, 700), (64, 47), (8000, 8000))
TIFF_LOOP = b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0"  # a directory without entries, followed by itself


def jpeg_lies(source: Source) -> Iterator[File]:
    """Every lie about one file."""
    for kind, data in _lies(source.data):
        yield "JPEG", kind, data


def _lies(data: bytes) -> Iterator[tuple[str, bytes]]:
    frame = next(i for i, marker, _ in segments(data) if marker in (0xC0, 0xC1, 0xC2))
    for width, height in SIDES:
        yield "dimensions", data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]
    for precision in (0, 1, 12, 16, 255):
        yield "header", _put(data, frame + 4, precision)
    for components in (0, 2, 5, 255):
        yield "header", _put(data, frame + 9, components)
    for sampling in (0x00, 0x44, 0x33, 0xFF, 0x14):
        yield "header", _put(data, frame + 11, sampling)
    for marker in (0xC3, 0xC5, 0xC9, 0xCA, 0xCD, 0xC4, 0xD8):  # lossless, differential, arithmetic, a table, a start
        yield "header", _put(data, frame + 1, marker)
    for at, _, length in segments(data):
        for wrong in (0, 1, 2, length - 1, length + 1, 65_535):
            yield "lengths", data[: at + 2] + struct.pack(">H", wrong) + data[at + 4 :]
        yield "missing", data[:at] + data[at + 2 + length :]
    yield from _too_much(data)


def _too_much(data: bytes) -> Iterator[tuple[str, bytes]]:
    start, rest = data[:2], data[2:]
    exif = segment(0xE1, b"Exif\0\0" + TIFF_LOOP)
    for count in (2, 49, 51, 2000):
        yield "exif-repeated", start + exif * count + rest
    yield "exif-large", start + b"".join(segment(0xE1, b"Exif\0\0" + bytes(65_000)) for _ in range(40)) + rest
    for values in (
        (0x0112, 3, 1 << 30, 8),
        (0x0112, 12, 1, 4),
        (0x0112, 2, 4, 0xFFFFFFFF),
        (0x8769, 4, 1, 8),
        (0x0112, 99, 1, 6),
    ):
        block = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", *values) + b"\x08\0\0\0"
        yield "exif", start + segment(0xE1, b"Exif\0\0" + block) + rest
    yield "exif", start + segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff") + rest
    profile = [segment(0xE2, b"ICC_PROFILE\0" + bytes((i % 256, 255)) + bytes(60_000)) for i in range(1, 60)]
    yield "icc-large", start + b"".join(profile) + rest
    yield "icc-order", start + segment(0xE2, b"ICC_PROFILE\0\0\0") + segment(0xE2, b"ICC_PROFILE\0\xff\1x") + rest
    yield "tiny-segments", start + segment(0xFE, b"") * 30_000 + rest
    yield "tiny-segments", start + segment(0xDB, bytes((0,)) + bytes(64)) * 500 + rest
    yield "fill", start + b"\xff" * 100_000 + rest
    yield (
        "thumbnail",
        start + segment(0xE2, b"MPF\0" + b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0xB001, 4, 1, 1 << 31)) + rest,
    )
    yield "photoshop", start + segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\xff\xff\xff\xff") + rest
    scan = next(i for i, marker, _ in segments(data) if marker == 0xDA)
    yield "restarts", data[:scan] + segment(0xDD, b"\0\1") + data[scan:]
    yield "scans", data[:-2] + data[scan:-2] * 300 + data[-2:]
    yield "start-only", start + data[-2:]
    yield "two-frames", data[:-2] + rest
    yield "nested", data[:2] + segment(0xE1, b"Exif\0\0" + data[:60_000]) + rest


def segment(marker: int, body: bytes) -> bytes:
    """One segment with its true length."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(where, marker, length as told) of each segment up to the first scan, which is the last one."""
    at = 2
    while True:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        yield at, marker, length
        if marker == 0xDA:
            return
        at += 2 + length


def _put(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((value,)) + data[at + 1 :]
