"""The binary form of tensors in the Open Inference Protocol: elements of BYTES, and where each tensor of a body begins.

Knows no HTTP, no names and no model. Numbers have no form of their own: they are little-endian, row by row, with nothing between.
Source: Triton Inference Server, docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct

from app.errors import BodyTooLarge, MalformedRequest

_LENGTH = Struct("<I")  # of an element of BYTES, before it


def elements(data: bytes | memoryview, count: int, most_bytes: int) -> list[bytes]:
    """The elements of a BYTES tensor, copied out of its binary form once all of their lengths are known to be in order.

    Raises:
        MalformedRequest: other than `count` elements, or one that is cut short.
        BodyTooLarge: one of more than `most_bytes`.
    """
    view = memoryview(data)
    spans: list[tuple[int, int]] = []
    at = 0
    while at < len(view):
        if len(spans) == count:
            raise MalformedRequest(f"{len(view) - at} bytes follow the {count} elements that the shape announces")
        if len(view) - at < _LENGTH.size:
            raise MalformedRequest(f"element {len(spans)} is cut short: {len(view) - at} bytes are left, and its length takes 4")
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if length > len(view) - at:
            raise MalformedRequest(f"element {len(spans)} is cut short: it should have {length} bytes, {len(view) - at} are left")
        if length > most_bytes:
            raise BodyTooLarge(most_bytes, length)
        spans.append((at, at + length))
        at += length
    if len(spans) != count:
        raise MalformedRequest(f"the data has {len(spans)} elements; its shape announces {count}")
    return [bytes(view[start:end]) for start, end in spans]


def packed(parts: Iterable[bytes]) -> bytes:
    """Elements of BYTES in their binary form."""
    return b"".join(piece for part in parts for piece in (_LENGTH.pack(len(part)), part))


def split(body: bytes | memoryview, head_length: int, sizes: Sequence[int]) -> list[memoryview]:
    """The parts of a body after its JSON, by their sizes in bytes and in their order; nothing is copied.

    Raises:
        MalformedRequest: the sizes are not those of the body.
    """
    view = memoryview(body)
    if any(size < 0 for size in sizes) or head_length + sum(sizes) != len(view):
        raise MalformedRequest(
            f"after the {head_length} bytes of JSON the body has {len(view) - head_length} bytes; "
            f"the inputs' binary_data_size say {' + '.join(map(str, sizes[:10]))[:100] or 0}"
        )
    parts = []
    at = head_length
    for size in sizes:
        parts.append(view[at : at + size])
        at += size
    return parts
