"""From one text of a JSON body to the next, before a parser sees it, and how little may stand outside of them.

Images are texts. Beside them an honest body has some kilobytes: brackets, names, a shape. Whole numbers of thousands of digits,
blanks and brackets by the megabyte would hold the interpreter, and with it every request, while the parser reads them.
Knows no HTTP.
"""

from __future__ import annotations

from app.errors import MalformedRequest

MOST_OUTSIDE = 1 << 18  # characters; the most numbers that they can hold take some milliseconds
MOST_QUOTES = 20_000  # of keys and of texts, and inside of them, beside those of images; each costs a step
_OF_IMAGE = 8  # {"image": {"b64": "..."}}, and two to spare
_MOST_SLASHES = 64  # that may stand before a quote


class Texts:
    """The texts of a JSON body, in their order. Only where texts begin and end is looked at, not whether it is JSON.

    Args:
        images: as many may be in it.
    """

    def __init__(self, body: bytes, images: int = 1) -> None:
        self._body = body
        self._most_quotes = MOST_QUOTES + _OF_IMAGE * images
        self._at = self._outside = self._quotes = 0

    def next(self) -> tuple[int, int] | None:
        """Where the next text begins and ends, with its quotes; None where there is no other.

        Raises:
            MalformedRequest: a text does not end, there are too many quotes, or too much stands outside of them.
        """
        start = self._body.find(b'"', self._at)
        self._outside += (start if start >= 0 else len(self._body)) - self._at
        if self._outside > MOST_OUTSIDE:
            raise MalformedRequest(f"the JSON holds more than {MOST_OUTSIDE} characters outside of its texts and data")
        if start < 0:
            return None
        self._count()
        self._at = self._end(start)
        return start, self._at

    def skip(self, end: int) -> None:
        """Go on at `end`: what stands before it was read otherwise, and is not counted."""
        self._at = end

    def _end(self, start: int) -> int:
        end = start
        while (end := self._body.find(b'"', end + 1)) >= 0:
            self._count()
            before = self._body[max(start + 1, end - _MOST_SLASHES) : end]
            slashes = len(before) - len(before.rstrip(b"\\"))
            if slashes == _MOST_SLASHES:
                break
            if slashes % 2 == 0:
                return end + 1
        raise MalformedRequest("the JSON is not as documented: a text does not end")

    def _count(self) -> None:
        self._quotes += 1
        if self._quotes > self._most_quotes:
            raise MalformedRequest(f"the JSON holds more than {self._most_quotes} quotes")


def check_texts(body: bytes, images: int = 1) -> None:
    """Only texts may be long, and there may be as many as so many images need.

    Raises:
        MalformedRequest: see `Texts.next`.
    """
    texts = Texts(body, images)
    while texts.next() is not None:
        pass
