"""How many frames an image has, counted without decoding any.

Only the first frame of an image is ever decoded; this keeps a file of a million frames from costing anybody more than that. The
number may be announced (PNG, AVIF, HEIC) or must be counted, which stops behind the number that is allowed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from model.containers import boxes, gif_frames, png_chunks, riff_chunks, tiff_directories


def count(name: str, data: bytes, most: int) -> int:
    """Frames of an image in the format `name`, at least; no more than `most` + 1 are counted one by one.

    Raises:
        ImageUndecodable: cut into too many pieces to tell.
    """
    counter = _COUNTERS.get(name)
    return 1 if counter is None else counter(data, most)


def gif_canvas(data: bytes) -> tuple[int, int]:
    """(width, height) that the first frame of a GIF needs: it may reach beyond what the header says."""
    left, top, width, height = next(gif_frames(data), (0, 0, 0, 0))
    return max(left + width, int.from_bytes(data[6:8], "little")), max(top + height, int.from_bytes(data[8:10], "little"))


def _gif(data: bytes, most: int) -> int:
    return _counted(gif_frames(data), most)


def _webp(data: bytes, most: int) -> int:
    if data[12:16] != b"VP8X":  # neither lossy nor lossless alone can move; RFC 9649, section 2.6
        return 1
    return max(1, _counted((True for kind, _, _ in riff_chunks(data) if kind == b"ANMF"), most))


def _png(data: bytes, most: int) -> int:
    for kind, start, _ in png_chunks(data):
        if kind == b"acTL" and start + 4 <= len(data):  # PNG, third edition, section 11.3.6.1
            return int.from_bytes(data[start : start + 4])
        if kind == b"IDAT":
            break
    return 1


def _tiff(data: bytes, most: int) -> int:
    return _counted(tiff_directories(data), most)


def _sequence(data: bytes, most: int) -> int:
    """Samples of the longest track of a sequence (AVIF, HEIC); ISO/IEC 14496-12, section 8.7.3."""
    return max((1, *(_samples(data, at) for at, _ in _within(data, (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsz")))))


def _samples(data: bytes, at: int) -> int:
    try:
        return int(struct.unpack_from(">I", data, at + 8)[0])  # behind version, flags and the size that all may share
    except struct.error:
        return 1


def _within(data: bytes, path: tuple[bytes, ...]) -> Iterator[tuple[int, int]]:
    """(start, end) of the body of each box that a path of types leads to."""
    places = [(0, len(data))]
    for wanted in path:
        places = [(start, end) for place in places for kind, start, end in boxes(data, *place) if kind == wanted]
    yield from places


def _counted(frames: Iterable[object], most: int) -> int:
    return sum(1 for _ in islice(frames, most + 1))


_COUNTERS: dict[str, Callable[[bytes, int], int]] = {
    "GIF": _gif,
    "WEBP": _webp,
    "PNG": _png,
    "TIFF": _tiff,
    "AVIF": _sequence,
    "HEIC": _sequence,
}
