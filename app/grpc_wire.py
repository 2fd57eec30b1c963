"""What a message holds, counted in its bytes on the wire before anything is made of it. Knows no protocol and no server.

Of a few bytes a parser makes whole objects, and what walks them holds the event loop; so the count comes first and ends early.
Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.message import DecodeError

from app.errors import MalformedRequest

FIELDS = 1024  # of one message, with those of the messages in it, beside its images
TEXT_BYTES = 65_536  # of all names, ids and parameters of one message together
_TEXT, _BYTES, _VARINT = -1, 0, 2  # kinds of a field, or the bytes of a number in it: a varint of a pixel has two at most
_KINDS = {1: 8, 2: 4, 6: 8, 7: 4, 9: _TEXT, 12: _BYTES, 15: 4, 16: 8}  # by FieldDescriptor.TYPE_*
_FIXED = {1: 8, 5: 4}  # wire types
_VARINT_BYTES = 10


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a message may hold: fields at every depth; numbers in packed fields, tensors written out number by number."""

    fields: int = FIELDS
    numbers: int = 256


def check(data: bytes, descriptor: Any, bounds: Bounds) -> None:
    """Walk over the fields of a message, up to the first one too many. At most about a millisecond for a thousand.

    Raises:
        MalformedRequest: it holds more than it may. DecodeError: it is no message.
    """
    fields = numbers = text = 0
    ahead = [(0, len(data), _table(descriptor))]
    while ahead:
        place, end, table = ahead.pop()
        while place < end:
            fields += 1
            if fields > bounds.fields:
                raise MalformedRequest(f"the message has more than {bounds.fields} fields")
            tag, place = _varint(data, place)
            wire = tag & 7
            if wire == 0:
                _, place = _varint(data, place)
            elif wire in _FIXED:
                place += _FIXED[wire]
            elif wire == 2:
                length, begin = _varint(data, place)
                place = begin + length
                kind = table.get(tag >> 3, _BYTES)
                if not isinstance(kind, int):
                    ahead.append((begin, min(place, end), _table(kind)))
                elif kind == _TEXT:
                    text += length
                elif kind != _BYTES:
                    numbers += length // kind
            else:
                raise DecodeError("a group")
        if place > end:
            raise DecodeError("cut off")
    if numbers > bounds.numbers:
        raise MalformedRequest(f"the message has more than {bounds.numbers} numbers outside raw_input_contents")
    if text > TEXT_BYTES:
        raise MalformedRequest(f"the names and parameters of the message have more than {TEXT_BYTES} bytes")


@cache
def _table(descriptor: Any) -> dict[int, Any]:
    """The fields of a message by their number: the message that one holds, or its kind."""
    return {field.number: field.message_type or _KINDS.get(field.type, _VARINT) for field in descriptor.fields}


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for index in range(_VARINT_BYTES):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value, place
    raise DecodeError("cut off")
