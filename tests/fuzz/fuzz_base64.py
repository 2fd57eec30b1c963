"""Any text as base64, against the standard library's decoder; the first byte says how much is decoded at a time."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from unittest import mock

from app import sources
from app.errors import BodyTooLarge, MalformedRequest

WHITE = str.maketrans("", "", " \t\r\n\f\v")
WHOLE = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def seeds() -> Iterator[bytes]:
    """Each length of padding, white space in every place, and what is nearly right."""
    for text in (
        b"QQ==",
        b"QUI=",
        b"QUJD",
        b"Q UJ\nD\r\nRA\t=\x0b=\x0c",
        b"QQ==QQ==",
        b"QUJ",
        b"====",
        b"-_-_",
        b"",
        b"\xc3\xa9",
        b"QQ=",
        b"QR==",
        b"AAAA===",
    ):
        yield b"\0" + text
        yield b"\3" + text * 3
    yield b"\x10" + base64.encodebytes(bytes(range(256)))


def check(data: bytes) -> None:
    """The same bytes as the standard library's, or refused by both; and never more than allowed."""
    step, text = (data[:1] or b"\0")[0], data[1:].decode("utf-8", "replace")
    if text[:5].lower() == "data:":
        return  # the next target's
    expected = standard(text)
    with mock.patch.object(sources, "_BASE64_STEP", step or 1 << 19):
        assert ours(text) == expected, (text, expected)
        if expected:
            assert ours(text, len(expected)) == expected
            assert too_large(text, len(expected) - 1), "one byte too many was let through"


def ours(text: str, max_bytes: float = float("inf")) -> bytes | None:
    """What this service makes of it; None where it is refused."""
    try:
        return sources.decode_base64(text, max_bytes)
    except MalformedRequest:
        return None


def too_large(text: str, max_bytes: int) -> bool:
    """Whether it is refused for its size."""
    try:
        sources.decode_base64(text, max_bytes)
    except BodyTooLarge:
        return True
    return False


def standard(text: str) -> bytes | None:
    """What RFC 4648 allows, decoded by the standard library, which by itself also takes AAAA====; no bytes are no image."""
    bare = text.translate(WHITE)
    return base64.b64decode(bare) or None if WHOLE.fullmatch(bare) else None
