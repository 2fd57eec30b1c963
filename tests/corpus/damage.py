"""Damage that knows little of formats: files cut off, bits turned over, pieces overwritten, removed, doubled, spliced."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

from tests.corpus.sources import Source

File = tuple[str, str, bytes]  # format, kind, bytes

# Where the parts of a file begin, roughly: JPEG markers, PNG and RIFF chunks, ISO boxes, GIF blocks.
_EDGES = re.compile(
    rb"\xff[\xc0-\xfe]|IHDR|PLTE|tRNS|IDAT|fdAT|fcTL|IEND|VP8[ LX]|ALPH|ANIM|ANMF|EXIF"
    rb"|ftyp|meta|iloc|iinf|iprp|ispe|av1C|hvcC|mdat|moov|trak|stbl|\x21[\xf9\xfe\xff]|\x2c\0\0\0\0"
)
_LENGTHS = (0, 1, 2, 3, 4, 7, 8, 11, 12, 16, 20, 24, 30, 33, 54)  # in the header, whatever it is


def damaged(sources: Sequence[Source], rng: random.Random) -> Iterator[File]:
    """Without end: each source in turn, each time in another way."""
    ways: tuple[tuple[str, Callable[[bytes, random.Random], bytes]], ...] = (
        ("cut-header", cut_in_header),
        ("flip-header", flip_in_header),
        ("cut-edge", cut_at_edge),
        ("flip", flip),
        ("cut", cut),
        ("overwritten", overwrite),
        ("flip-many", flip_many),
        ("removed", remove),
        ("doubled", double),
        ("noise", end_in_noise),
        ("swapped", swap),
        ("cut-tail", cut_tail),
    )
    while True:
        for kind, way in ways:
            for source in sources:
                yield source.format, kind, way(source.data, rng)


def spliced(sources: Sequence[Source]) -> Iterator[File]:
    """The beginning of one format on the body of another: a signature alone, a header, a half; each pair of formats."""
    first = {source.format: source.data for source in reversed(sources)}
    for name, head in first.items():
        for other, body in first.items():
            if other != name:
                yield name, "spliced", head[:12] + body[12:]
                yield name, "spliced", head[:64] + body[64:]
                yield name, "spliced", head[: len(head) // 2] + body[len(body) // 2 :]


def cut_in_header(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice(_LENGTHS)]


def cut_at_edge(data: bytes, rng: random.Random) -> bytes:
    """At the beginning of some part, or a few bytes into it."""
    edges = [match.start() for match in _EDGES.finditer(data)] or [len(data) // 3]
    return data[: rng.choice(edges) + rng.choice((-1, 0, 1, 2, 4, 6))]


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def cut_tail(data: bytes, rng: random.Random) -> bytes:
    return data[: -rng.randint(1, 16)]


def flip(data: bytes, rng: random.Random) -> bytes:
    return _flipped(data, rng, 1, len(data))


def flip_in_header(data: bytes, rng: random.Random) -> bytes:
    return _flipped(data, rng, rng.randint(1, 3), 200)


def flip_many(data: bytes, rng: random.Random) -> bytes:
    return _flipped(data, rng, max(8, len(data) // 100), len(data))


def _flipped(data: bytes, rng: random.Random, count: int, within: int) -> bytes:
    found = bytearray(data)
    for _ in range(count):
        found[rng.randrange(min(within, len(found)))] ^= 1 << rng.randrange(8)
    return bytes(found)


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """A run of equal bytes: what a full disk leaves, and what makes the largest and smallest numbers."""
    at, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 64, 512))
    return data[:at] + bytes((rng.choice((0, 0xFF, 0x7F, 0x80)),)) * min(length, len(data) - at) + data[at + length :]


def remove(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(8, len(data))
    return data[:at] + data[at + rng.choice((1, 2, 3, 16, 100)) :]


def double(data: bytes, rng: random.Random) -> bytes:
    """A piece twice, so that everything behind it lies elsewhere than it is said to."""
    at, length = rng.randrange(len(data)), rng.choice((1, 4, 12, 64, 1000))
    return data[: at + length] + data[at:]


def swap(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(4, len(data)) for _ in range(2))
    return data[:a] + data[b:] + data[a:b]


def end_in_noise(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(16, len(data))
    return data[:at] + rng.randbytes(len(data) - at)
