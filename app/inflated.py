"""Bodies that come compressed (RFC 9110, section 8.4.1): unpacked a step at a time, so that no more comes out than is allowed.

Knows no request: whoever asks says how much that is, and is told of each step.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any

from app.context import Deadline
from app.errors import BodyTooLarge, DeadlinePassed, MalformedRequest

_WINDOW = {"gzip": 31, "deflate": 15}  # zlib's `wbits`: deflate is that of RFC 1950, as RFC 9110 has it
CODINGS = tuple(_WINDOW)
NONE = "identity"  # a coding that is none (RFC 9110, section 12.5.3)
_TAKEN = 1 << 18  # bytes that go in at a time
_GIVEN = 1 << 20  # bytes that come out at a time, about a millisecond
_MOST_MEMBERS = 4096  # of gzip, which may come one after the other; each costs a step, however little it holds


def codings_of(given: str) -> list[str]:
    """What a body went through, by the header `Content-Encoding`: empty where it came as it is."""
    return [name for each in given.split(",") if (name := each.strip().lower()) not in ("", NONE)]


async def inflated(body: bytes, coding: str, most: int, take: Callable[[int], None], deadline: Deadline) -> bytes:
    """What a body of one of `CODINGS` holds; of gzip all members together (RFC 1952, section 2.2).

    `take` is told of the bytes of each step, and may raise what it likes.

    Raises:
        MalformedRequest: it is damaged, cut short, something follows, or it has too many members.
        BodyTooLarge: it holds more than `most` bytes.
        DeadlinePassed: it took too long.
    """
    unpack, members = zlib.decompressobj(_WINDOW[coding]), 1
    pieces: list[bytes] = []
    size = 0
    for at in range(0, len(body), _TAKEN):
        rest, full = body[at : at + _TAKEN], True
        while rest or (full and not unpack.eof):
            if unpack.eof:
                unpack, members = _next(coding, members), members + 1
            try:
                piece = await asyncio.to_thread(unpack.decompress, rest, _GIVEN)
            except zlib.error:
                raise MalformedRequest(f"the body is no valid {coding}") from None
            size += len(piece)
            if size > most:
                raise BodyTooLarge(most, size)
            take(len(piece))
            if asyncio.get_running_loop().time() > deadline.at:
                raise DeadlinePassed(deadline.limit_s)
            pieces.append(piece)
            rest, full = unpack.unconsumed_tail or unpack.unused_data, len(piece) == _GIVEN
    if not unpack.eof:
        raise MalformedRequest(f"the {coding} body is cut short")
    return b"".join(pieces)


def _next(coding: str, members: int) -> Any:
    """What unpacks the member after so many; its type is zlib's own, which has no name."""
    if coding != "gzip":
        raise MalformedRequest(f"something follows the {coding} body")
    if members >= _MOST_MEMBERS:
        raise MalformedRequest(f"the gzip body has more than {_MOST_MEMBERS} members")
    return zlib.decompressobj(_WINDOW[coding])
