"""What crosses between this process and one that works for it: an order at the start, then a length and bytes, then an answer.

Nothing is unpickled and nothing is believed: an answer is fixed fields, a short printable text, and as many pixels as the fields
say, once those are within the limits. So a process that hostile bytes have taken over can give a wrong picture, and no more.
It knows nothing of processes, of pipes, or of how an image is decoded or a figure is drawn.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from model.errors import ImageError, ImageOverLimit, ImageTooLarge, ImageUndecodable
from model.image import ImageLimits

LENGTH = struct.Struct(">Q")  # of the encoded image that follows
_FIELDS = struct.Struct(">cIIQQH")  # kind, width, height, value, limit, bytes of text
HEAD_BYTES = _FIELDS.size
MAX_TEXT_BYTES = 300
PATIENCE = 2  # seconds by the clock for each second of processor time: others may have the processors
_STRIP_BYTES = 1_000_000  # of pixels handed over at a time: a second copy of the whole picture would cost its size again

READY, TAKEN = b"R", b"T"  # it has started; it has the whole image: from now on what befalls it is the image's doing
PICTURE = b"P"  # upright RGB pixels follow, three bytes each, row by row
DAMAGED, TOO_LARGE, OVER_LIMIT, NO_MEMORY = b"D", b"S", b"O", b"M"
DRAWN, FAILED = b"F", b"E"  # a file of `value` bytes follows; there is none, the text says what kind of error was in the way
_KINDS = (READY, TAKEN, PICTURE, DAMAGED, TOO_LARGE, OVER_LIMIT, NO_MEMORY, DRAWN, FAILED)


class Rubbish(Exception):
    """Bytes that are no answer."""


@dataclass(frozen=True)
class Order:
    """How to decode: within which limits, in `seconds` of processor time, within `memory_bytes` of address space."""

    limits: ImageLimits
    seconds: float
    memory_bytes: int

    def dump(self) -> str:
        """As a program's argument."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Order:
        """Out of a program's argument."""
        fields = json.loads(text)
        limits = fields.pop("limits")
        return cls(ImageLimits(**{**limits, "formats": tuple(limits["formats"])}), **fields)


@dataclass(frozen=True, slots=True)
class Answer:
    """One message of the decoding process, without the pixels that may follow it."""

    kind: bytes
    width: int = 0
    height: int = 0
    value: int = 0
    limit: int = 0
    text: str = ""

    def pack(self) -> bytes:
        """The head with its text, which is cut where it is too long."""
        text = self.text.encode("ascii", "replace")[:MAX_TEXT_BYTES]
        return _FIELDS.pack(self.kind, self.width, self.height, self.value, self.limit, len(text)) + text


def text_bytes(head: bytes) -> int:
    """How many bytes of text follow a head of `HEAD_BYTES`.

    Raises:
        Rubbish: it is none.
    """
    kind, *_, length = _FIELDS.unpack(head)
    if kind not in _KINDS or length > MAX_TEXT_BYTES:
        raise Rubbish(f"kind {kind!r} with {length} bytes of text")
    return int(length)


def unpack(head: bytes, text: bytes) -> Answer:
    """The message of a head and its text.

    Raises:
        Rubbish: a text that is not plain.
    """
    kind, width, height, value, limit, _ = _FIELDS.unpack(head)
    words = text.decode("ascii", "replace")
    if not words.isascii() or not words.isprintable():
        raise Rubbish("a text that is not plain")
    return Answer(kind, width, height, value, limit, words)


def answer_of(error: ImageError) -> Answer:
    """An error as a message."""
    if isinstance(error, ImageTooLarge):
        # A size in a header may be anything that its format can say.
        width, height = (min(side, 2**32 - 1) for side in (error.width, error.height))
        return Answer(TOO_LARGE, width, height, limit=error.limit)
    if isinstance(error, ImageOverLimit):
        return Answer(OVER_LIMIT, value=min(int(error.value or 0), 2**64 - 1), limit=int(error.limit), text=str(error))
    if isinstance(error.__cause__, MemoryError):
        return Answer(NO_MEMORY)
    return Answer(DAMAGED, text=str(error))


def error_of(answer: Answer) -> ImageError:
    """The error that a message tells of.

    Raises:
        Rubbish: it tells of none.
    """
    if answer.kind == TOO_LARGE:
        return ImageTooLarge(answer.width, answer.height, answer.limit)
    if answer.kind == OVER_LIMIT:
        return ImageOverLimit(answer.text, answer.limit, answer.value)
    if answer.kind == DAMAGED:
        return ImageUndecodable(answer.text)
    raise Rubbish(f"kind {answer.kind!r} where an error was due")


def check_size(answer: Answer, limits: ImageLimits) -> None:
    """Hold the size of a picture against the limits before any memory is made for it.

    Raises:
        Rubbish: no size that a picture within them could have.
    """
    width, height = answer.width, answer.height
    if min(width, height) < 1 or max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise Rubbish(f"a picture of {width} x {height} pixels")


def strips(width: int, height: int) -> Iterator[tuple[int, int]]:
    """The rows of a picture, from and to, as they are sent one after the other."""
    rows = max(1, _STRIP_BYTES // (3 * width))
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
