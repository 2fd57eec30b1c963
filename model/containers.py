"""How image files are put together: their chunks, blocks, boxes and directories, each read without what it holds.

Every walk ends: it goes forward only, or where a file may point back remembers where it was, and its steps are counted. Bytes
that make no sense end a walk, since whoever decodes them will say so. This file knows no limits on images.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from model.errors import ImageUndecodable

# 20 MB in pieces of 200 bytes; a walk of so many takes some 30 ms. The blocks of a GIF are 256 bytes at most.
MAX_PIECES = 100_000
MAX_BLOCKS = 400_000


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of the body of each chunk up to the end of the picture; PNG, third edition, section 5.3."""
    at = 8
    for _ in _bounded(MAX_PIECES):
        if at + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8, min(at + 8 + length, len(data))
        if kind == b"IEND":
            return
        at += 12 + length


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of the body of each chunk of a WebP; RFC 9649, section 2.3."""
    at, last = 12, min(len(data), int.from_bytes(data[4:8], "little") + 8)
    for _ in _bounded(MAX_PIECES):
        if at + 8 > last:
            return
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, at + 8, min(at + 8 + length, len(data))
        at += 8 + length + (length & 1)


def gif_frames(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(left, top, width, height) of each frame of a GIF; GIF89a, sections 20 to 27."""
    if len(data) < 13:
        return
    at = 13 + _colours(data[10])
    steps = iter(_bounded(MAX_BLOCKS))
    while at + 1 < len(data) and data[at] in b"!,":
        next(steps)
        if data[at] == ord("!"):
            at += 2
        elif at + 10 < len(data):
            yield struct.unpack_from("<4H", data, at + 1)
            at += 11 + _colours(data[at + 9])
        else:
            return
        while at < len(data) and data[at]:  # blocks of data, up to an empty one
            next(steps)
            at += data[at] + 1
        at += 1


def _colours(flags: int) -> int:
    """Bytes of the table of colours that such flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def tiff_layout(data: bytes) -> tuple[str, bool, int]:
    """(byte order, whether it is a BigTIFF, offset of the first directory); TIFF 6.0, section 2.

    Raises:
        struct.error: too short.
    """
    order, big = "<" if data[:1] == b"I" else ">", 43 in data[2:4]  # 43: BigTIFF, with 64-bit counts and offsets
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    return order, big, at


def tiff_entries(data: bytes, layout: tuple[str, bool, int]) -> Iterator[tuple[int, int, int]]:
    """(tag, type, number of values) of each entry of the directory at the layout's offset.

    Raises:
        struct.error: it lies outside of the file.
    """
    order, big, at = layout
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    at, width, entry = (at + 8, 20, "HHQ") if big else (at + 2, 12, "HHI")
    for i in range(min(entries, 65_535)):
        yield struct.unpack_from(order + entry, data, at + i * width)


def tiff_directories(data: bytes) -> Iterator[int]:
    """The offset of each directory of a TIFF in the chain that begins in its header."""
    seen: set[int] = set()
    try:
        order, big, at = tiff_layout(data)
        for _ in _bounded(MAX_PIECES):
            if not at or at in seen:
                return
            seen.add(at)
            (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
            yield at
            (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, at + (8 + 20 * entries if big else 2 + 12 * entries))
    except struct.error:  # the chain leads out of the file
        return


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of the body of each box between two offsets; ISO/IEC 14496-12, section 4.2."""
    at = start
    for _ in _bounded(MAX_PIECES):
        if at + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if size == 1 and at + 16 <= end:  # the size follows in 64 bits
            (size,), body = struct.unpack_from(">Q", data, body), at + 16
        if size == 0:  # up to the end
            size = end - at
        if at + size < body:
            return
        yield kind, body, min(at + size, end)
        at += size


def _bounded(most: int) -> Iterator[int]:
    yield from range(most)
    raise ImageUndecodable(f"the image is cut into too many small pieces; at most {most} are read")
