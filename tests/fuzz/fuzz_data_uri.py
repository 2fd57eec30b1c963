"""Any text as a `data:` URI, against a second reading of RFC 2397 that shares no expression with the first."""

from __future__ import annotations

import string
from collections.abc import Iterator

from tests.fuzz.fuzz_base64 import ours, standard

LONGEST = 300  # characters before the data
WORD = frozenset(string.ascii_letters + string.digits + "_")
TYPE, NAME, VALUE = WORD | set(".+-"), WORD | {"-"}, WORD | set(".-")


def seeds() -> Iterator[bytes]:
    """Every optional part with and without, and what is nearly right."""
    yield from (
        b"data:image/png;base64,QUJD",
        b"DATA:;BASE64,QUJD",
        b"data:image/svg+xml;charset=utf-8;name=a.svg;base64,QQ==",
        b"data:image/png,QUJD",
        b"data:;base64;base64,QUJD",
        b"data:image/png;base64, Q U\nJD",
        b"data:image;base64,QUJD",
        b"data:image/png;charset=;base64,QUJD",
        b"data:base64,QUJD",
        b"data:" + b";a=b" * 80 + b";base64,QUJD",
        b"data:;base64,",
    )


def check(data: bytes) -> None:
    """What is a data URI by both readings gives the same bytes; what is none, nothing."""
    text = data.decode("utf-8", "replace")
    if text[:5].lower() != "data:":
        text = "data:" + text
    assert ours(text) == reading(text), text


def reading(text: str) -> bytes | None:
    """The bytes of a data URI, taken apart at its separators; None where it is none, or holds no image."""
    head, comma, body = text[5:].partition(",")
    media, *parameters = head.split(";")
    if not comma or len(head) + 6 > LONGEST or not parameters or parameters.pop().lower() != "base64":
        return None
    kind = media.split("/")
    if media and not (len(kind) == 2 and all(kind) and set(media) <= TYPE | {"/"}):
        return None
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if not (equals and name and value and set(name) <= NAME and set(value) <= VALUE):
            return None
    return standard(body)
