"""JSON in which tensors are written out: their numbers become arrays straight away, a piece at a time.

A number that is an object of the interpreter takes ten times the memory of its text, and reading some millions at once would hold
the event loop, whichever thread did it. What is left of the text has the name of an array in the place of each list of numbers.
Knows no HTTP and no tensor but that it stands under the key `data`.
"""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from app.errors import MalformedRequest
from app.json_texts import Texts

STEP = 1 << 16  # characters read at a time, about a millisecond
_MOST_LISTS = 64  # one a tensor, of which an honest request has one; each costs some microseconds
_KEY = b'"data"'
# Up to a list whose first entry is no text. More blanks and brackets than that are no one's list: the rest is left to the parser.
_LIST = re.compile(rb'[ \t\n\r]{0,4096}:[ \t\n\r]{0,4096}(?=\[[ \t\n\r\[]{0,4096}[^"{\] \t\n\r\[])')
# The parser takes no whole number of so many digits. To look within a run of digits again and again would take the square of it.
_LONG = re.compile(rb"(?<![0-9])[0-9]{4301}")
_NUMBERS = re.compile(rb"[0-9+\-.eE,\[\] \t\n\r]*")
_BLANKS = b" \t\n\r"
_NO_BRACKETS = bytes.maketrans(b"[]", b"  ")
_OPEN, _CLOSE = b"[]"


def lifted(text: bytes, most: int, images: int = 1) -> tuple[bytes, dict[str, NDArray[np.float32]]]:
    """The text with a name, as a text, in the place of each list of numbers under a key `data`; and the arrays by their names.

    Lists inside of lists become one array of one dimension. What the rest of the text is like is not looked at.

    Raises:
        MalformedRequest: such a list is no JSON, holds something else, there are more than `most` numbers in all, or too many
            lists; too much is neither in such lists nor in texts, or there are more texts than so many images need.
    """
    mark = os.urandom(8).hex()  # so that no text of the client's is taken for a name
    kept: list[bytes] = []
    arrays: dict[str, NDArray[np.float32]] = {}
    done = 0
    texts = Texts(text, images)
    while (span := texts.next()) is not None:
        start, at = span
        if at - start != len(_KEY) or not text.startswith(_KEY, start) or (found := _LIST.match(text, at)) is None:
            continue
        if len(arrays) == _MOST_LISTS:
            raise MalformedRequest(f"the JSON holds more than {_MOST_LISTS} tensors")
        array, end = _array(text, found.end(), most)
        most -= array.size
        name = f"{mark} {len(arrays)}"
        arrays[name] = array
        kept += (text[done : found.end()], f'"{name}"'.encode())
        done = end
        texts.skip(end)
    return b"".join((*kept, text[done:])) if arrays else text, arrays


def _array(text: bytes, begin: int, most: int) -> tuple[NDArray[np.float32], int]:
    """The numbers of the list that begins at `begin`, and where it ends."""
    parts: list[NDArray[np.float32]] = []
    at, depth, count, ended = begin, 0, 0, False
    while not ended:
        piece, end, depth = _piece(text, at, depth)
        ended = depth == 0
        values = _values(piece, first=at == begin, last=ended)
        count += len(values)
        if count > most:
            raise MalformedRequest(f"the data holds more than {most} numbers, which the most images that are allowed come to")
        try:
            with np.errstate(over="ignore"):  # beyond float32 is infinite, and for the model to refuse
                parts.append(np.array(values, np.float32))
        except OverflowError:
            raise MalformedRequest("the data holds a number that is too large") from None
        at = end
    return np.concatenate(parts), at


def _piece(text: bytes, at: int, depth: int) -> tuple[bytes, int, int]:
    """What comes next of a list: text up to its end or a comma, where to go on, and how many lists are open then."""
    stop = _numbers_end(text, at)
    raw = np.frombuffer(text, np.uint8, stop - at, at)
    places = np.flatnonzero((raw == _OPEN) | (raw == _CLOSE))
    depths = depth + np.cumsum(np.where(raw[places] == _OPEN, 1, -1))
    closed = np.flatnonzero(depths <= 0)
    if closed.size:
        end = at + int(places[closed[0]]) + 1
        return text[at:end], end, 0
    if stop < at + STEP:
        found = text[stop : stop + 10].decode("latin-1")
        raise MalformedRequest(f"the data holds {found!r} where numbers should be" if found else "the data does not end")
    cut = text.rfind(b",", at, stop)
    if cut < 0:
        raise MalformedRequest(f"the data holds {STEP} characters without a comma between")
    within = int(np.searchsorted(places, cut - at))
    return text[at:cut], cut + 1, int(depths[within - 1]) if within else depth


def _numbers_end(text: bytes, at: int) -> int:
    found = _NUMBERS.match(text, at, at + STEP)
    return at if found is None else found.end()


def _values(piece: bytes, *, first: bool, last: bool) -> list[Any]:
    """The numbers of a piece. What stands between numbers is the parser's to check; here, that lists begin and end around them:
    before a comma lists only end, after it they only begin, and none is empty.
    """
    tight = piece.translate(None, _BLANKS)
    wrong = any(pair in tight for pair in (b"[,", b",]", b"[]"))
    wrong = wrong or (not first and tight[:1] == b"]") or (not last and tight[-1:] == b"[")
    try:
        values: list[Any] = [] if wrong else from_json(b"[%b]" % piece.translate(_NO_BRACKETS), allow_inf_nan=False)
    except ValueError:
        values = []
    if not values and _LONG.search(piece):
        raise MalformedRequest("the data holds a number of more than 4300 digits")
    if not values:  # a list without any, or between two commas nothing
        raise MalformedRequest("the data is no list of numbers, or of lists of them, as JSON has it")
    return values
