"""Lies in formats made of chunks and boxes: PNG, WebP, AVIF, HEIC. Sizes, lengths, checksums, order, nesting, number."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from tests.corpus.damage import File
from tests.corpus.sources import Source
from tests.images import chunk

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIDES = ((0, 0), (0, 48), (64, 0), (1, 1), (0x7FFFFFFF, 0x7FFFFFFF), (0x80000000, 48), (0xFFFFFFFF, 1), (1 << 20, 47), (64, 5000))


def png_lies(source: Source) -> Iterator[File]:
    """Every lie about one PNG."""
    for kind, data in _png(source.data):
        yield "PNG", kind, data


def _png(data: bytes) -> Iterator[tuple[str, bytes]]:
    header, rest = data[16:29], data[33:]
    for width, height in SIDES:
        yield "dimensions", SIGNATURE + chunk(b"IHDR", struct.pack(">II", width, height) + header[8:]) + rest
    for at, values in ((8, (0, 3, 1, 16, 255)), (9, (0, 1, 3, 4, 6, 7)), (10, (1,)), (11, (1,)), (12, (1, 2))):
        for value in values:  # depth, colour type, compression, filter, interlacing
            yield "header", SIGNATURE + chunk(b"IHDR", header[:at] + bytes((value,)) + header[at + 1 :]) + rest
    parts = list(png_chunks(data))
    for i, (kind, body) in enumerate(parts):
        for length in (0, len(body) - 1, len(body) + 1, 0x7FFFFFFF, 0xFFFFFFFF):
            lied = struct.pack(">I", max(length, 0)) + chunk(kind, body)[4:]
            yield "lengths", SIGNATURE + _joined(parts[:i]) + lied + _joined(parts[i + 1 :])
        yield "checksum", SIGNATURE + _joined(parts[:i]) + chunk(kind, body)[:-4] + b"oops" + _joined(parts[i + 1 :])
        yield "missing", SIGNATURE + _joined(parts[:i]) + _joined(parts[i + 1 :])
        yield "doubled", SIGNATURE + _joined(parts[: i + 1]) + _joined(parts[i:])
    yield "order", SIGNATURE + _joined(parts[::-1])
    yield from _png_too_much(data[:33], rest, parts)


def _png_too_much(start: bytes, rest: bytes, parts: list[tuple[bytes, bytes]]) -> Iterator[tuple[str, bytes]]:
    yield "tiny-chunks", start + chunk(b"tEXt", b"a\0b") * 20_000 + rest
    pixels = b"".join(body for kind, body in parts if kind == b"IDAT")
    yield "tiny-chunks", start + b"".join(chunk(b"IDAT", pixels[i : i + 1]) for i in range(len(pixels))) + chunk(b"IEND", b"")
    yield "tiny-chunks", start + chunk(b"IDAT", b"") * 20_000 + rest
    yield "nested", start + chunk(b"tEXt", b"a\0" + start + rest) + rest
    yield "profile", start + chunk(b"iCCP", b"name\0\0" + zlib.compress(b"\0\0\1\0" + bytes(500))) + rest
    yield "profile", start + chunk(b"iCCP", b"x" * 200) + rest
    yield "text", start + chunk(b"iTXt", b"key\0\1\0en\0\0" + b"no deflate") + rest
    yield "text", start + chunk(b"zTXt", b"key\0\7" + zlib.compress(b"x")) + rest
    for frames, plays in ((0, 0), (0xFFFFFFFF, 0), (100_000, 1)):
        yield "animation", start + chunk(b"acTL", struct.pack(">II", frames, plays)) + rest
    control = struct.pack(">IIIIIHHBB", 0, 0xFFFFFF, 0xFFFFFF, 7, 7, 0, 0, 9, 9)
    yield "animation", start + chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", control) + rest
    yield "exif", start + chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff") + rest
    yield "palette", start + chunk(b"PLTE", b"x") + chunk(b"tRNS", bytes(300)) + rest
    yield "private", start + chunk(b"ABCD", b"critical and unknown") + rest


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) of each chunk."""
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += length + 12


def _joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(chunk(kind, body) for kind, body in parts)


def webp_lies(source: Source) -> Iterator[File]:
    """Every lie about one WebP: chunks of RIFF, lengths in little-endian, padded to even."""
    for kind, data in _webp(source.data):
        yield "WEBP", kind, data


def _webp(data: bytes) -> Iterator[tuple[str, bytes]]:
    for size in (0, 4, len(data), 0x7FFFFFFF, 0xFFFFFFFF):
        yield "lengths", b"RIFF" + struct.pack("<I", size) + data[8:]
    parts = list(riff_chunks(data))
    for i, (kind, body) in enumerate(parts):
        for length in (0, max(len(body) - 1, 0), len(body) + 2, 0x7FFFFFFF, 0xFFFFFFFE):
            lied = kind + struct.pack("<I", length) + body + bytes(len(body) % 2)
            yield "lengths", riff([*parts[:i], (b"", lied), *parts[i + 1 :]])
        yield "missing", riff([*parts[:i], *parts[i + 1 :]])
        yield "doubled", riff([*parts[: i + 1], *parts[i:]])
    yield "order", riff(parts[::-1])
    for width, height in ((1, 1), (1 << 24, 1 << 24), (1 << 24, 1), (16_384, 16_384), (63, 48)):
        canvas = bytes((0x1E, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        yield "dimensions", riff([(b"VP8X", canvas), *(part for part in parts if part[0] != b"VP8X")])
    for at in (20, 21, 22, 23, 24, 25, 26, 27, 28, 29):
        for value in (0, 0xFF):
            yield "header", data[:at] + bytes((value,)) + data[at + 1 :]
    yield "tiny-chunks", riff([*parts, *[(b"ABCD", b"")] * 30_000])
    yield "nested", riff([*parts, (b"RIFF", b"WEBP" + data[12:])])
    yield "exif", riff([(b"VP8X", bytes((8, 0, 0, 0, 63, 0, 0, 47, 0, 0))), *parts, (b"EXIF", b"II*\0\x08\0\0\0\xff\xff")])


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) of each chunk."""
    at = 12
    while at < len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def riff(parts: list[tuple[bytes, bytes]]) -> bytes:
    """A whole WebP; a chunk without a type is put in as it stands."""
    bodies = [kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2) if kind else body for kind, body in parts]
    joined = b"WEBP" + b"".join(bodies)
    return b"RIFF" + struct.pack("<I", len(joined)) + joined


BOXES = (
    b"ftyp",
    b"meta",
    b"hdlr",
    b"pitm",
    b"iloc",
    b"iinf",
    b"infe",
    b"iprp",
    b"ipco",
    b"ispe",
    b"av1C",
    b"hvcC",
    b"ipma",
    b"mdat",
)


def iso_lies(source: Source) -> Iterator[File]:
    """Every lie about one AVIF or HEIC: each box with other lengths, names and contents, and boxes inside of themselves."""
    for kind, data in _iso(source.data):
        yield source.format, kind, data


def _iso(data: bytes) -> Iterator[tuple[str, bytes]]:
    for name in BOXES:
        at = data.find(name) - 4
        if at < 0:
            continue
        true = int.from_bytes(data[at : at + 4])
        for length in (0, 1, 7, 8, true - 1, true + 1, 0x7FFFFFFF, 0xFFFFFFFF):
            yield "lengths", data[:at] + struct.pack(">I", length) + data[at + 4 :]
        yield "missing", data[: at + 4] + b"free" + data[at + 8 :]
        for value in (0x00, 0xFF):
            yield "contents", data[: at + 12] + bytes((value,)) * min(8, true - 12) + data[at + 20 :]
    at = data.find(b"ispe") + 8  # behind version and flags: the size
    for width, height in ((0, 0), (1, 1), (0x7FFFFFFF, 0x7FFFFFFF), (0xFFFFFFFF, 1), (65_536, 65_536), (64, 47), (7000, 7000)):
        yield "dimensions", data[:at] + struct.pack(">II", width, height) + data[at + 8 :]
    head = int.from_bytes(data[:4])
    for brands in (b"mif1", b"heic", b"avif", b"msf1", b"jpeg"):
        yield "brands", data[:8] + brands + data[12:]
    yield (
        "nested",
        data[:head] + (struct.pack(">I", 8 + 16 * 500) + b"meta" + (struct.pack(">I", 8000) + b"meta" + bytes(8)) * 500),
    )
    yield "tiny-boxes", data[:head] + (struct.pack(">I", 8) + b"free") * 30_000 + data[head:]
    yield "brands", struct.pack(">I", 16 + 4 * 5000) + data[4:16] + b"abcd" * 5000 + data[head:]
