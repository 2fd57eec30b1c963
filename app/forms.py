"""multipart/form-data (RFC 7578) -> its parts, from chunks as they arrive, through python-multipart's callbacks.

Nothing is spooled to files and no thread is asked: bodies are bounded by the middleware, so they fit into memory. It does not
know what the parts are for, only which of them are to be kept.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import MalformedRequest

_MAX_TEXTS = 100  # parts that are no files: ignored, so a few are enough
_MAX_TEXT_BYTES = 1 << 20
_SPARE_FILES = 1000  # read beyond those that are kept, so that the answer can tell how many there were
_PADDING = 64  # spaces behind a boundary: more are no padding, and the parser takes them one by one
_PARAMETERS = 64  # semicolons of a header: names of files may hold many, and splitting takes 0.6 us for each
_COPY_BYTES = 1024  # smaller pieces are copied at once: a view costs more memory than they do


@dataclass(slots=True)
class Part:
    """One part. `filename` is None where it came without one, so is text; `data` is kept of wanted files only."""

    name: str
    filename: str | None
    data: bytes = b""


async def read_form(content_type: str, body: AsyncGenerator[bytes, None], *, wanted: str, most: int) -> list[Part]:
    """Every part in order, with the bytes of the first `most` files named `wanted`.

    Raises:
        MalformedRequest: not in order, cut off, or of very many parts.
    """
    form = _Form(wanted, most)
    async with aclosing(body):
        try:
            # Only the boundary is used: RFC 7578 knows no charset here, and Python's codecs hold some that fail on decoding.
            boundary = _parameters(content_type).get(b"boundary")
            if not boundary:
                raise _unreadable()
            parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": form.begin,
                    "on_header_field": form.add_to_field,
                    "on_header_value": form.add_to_value,
                    "on_header_end": form.end_header,
                    "on_headers_finished": form.end_headers,
                    "on_part_data": form.add,
                    "on_part_end": form.end,
                    "on_end": form.finish,
                },
            )
            delimiters = _Delimiters(boundary, most + _SPARE_FILES + _MAX_TEXTS + 1)
            begun = False
            async for chunk in body:
                if not begun:  # the parser skips more than line ends before the first boundary, and how much hangs on the pieces
                    chunk = chunk.lstrip(b"\r\n")
                    begun = bool(chunk)
                delimiters.count(chunk)
                parser.write(chunk)
        except FormParserError:
            raise _unreadable() from None  # the library's text is about its parser; ours is about the request
    if not form.complete:
        raise MalformedRequest("the multipart body has no closing boundary: it is not complete")
    return form.parts


def _unreadable() -> MalformedRequest:
    return MalformedRequest("the multipart body cannot be read: boundary, part headers or the number of parts are not in order")


def _parameters(header: str) -> dict[bytes, bytes]:
    """What follows the value of a header. Raises MalformedRequest where that is far more than anybody sends."""
    if header.count(";") > _PARAMETERS:
        raise _unreadable()
    return parse_options_header(header)[1]


class _Delimiters:
    """Counts the lines that begin with the boundary before the parser reads them.

    It goes byte by byte where such a line is none of a delimiter, or has padding: megabytes of them would hold the event loop for
    seconds. No part may hold one (RFC 2046, section 5.1.1), so what is beyond the parts that are read is out of order anyway.
    """

    def __init__(self, boundary: bytes, most: int) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._padded = re.compile(re.escape(self._delimiter) + b"[ \t]{%d}" % _PADDING)
        self._left = most
        self._tail = b"\r\n"  # a body may begin with its first boundary; later: what may go on in the next chunk

    def count(self, chunk: bytes) -> None:
        """Raises MalformedRequest before anything of a chunk too much is parsed."""
        text = self._tail + chunk
        self._left -= text.count(self._delimiter) - self._tail.count(self._delimiter)
        if self._left < 0 or self._padded.search(text):
            raise _unreadable()
        self._tail = text[-(len(self._delimiter) + _PADDING - 1) :]


class _Form:
    """What the parser told so far."""

    def __init__(self, wanted: str, most: int) -> None:
        self.parts: list[Part] = []
        self.complete = False  # the closing boundary came; without it parts may be missing
        self._wanted = wanted
        self._left = most
        self._files_left = most + _SPARE_FILES
        self._texts_left = _MAX_TEXTS
        self._field = self._value = b""
        self._disposition = b""
        self._pieces: list[bytes | memoryview] | None = None  # of the part that is being read, if it is kept
        self._text_bytes = 0

    def begin(self) -> None:
        self._disposition = b""

    def add_to_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def end_headers(self) -> None:
        options = _parameters(self._disposition.decode("latin-1"))
        if b"name" not in options:
            raise _unreadable()
        filename = options.get(b"filename")
        part = Part(_text(options[b"name"]), None if filename is None else _text(filename))
        if filename is None:
            self._texts_left -= 1
        else:
            self._files_left -= 1
        if self._texts_left < 0 or self._files_left < 0:
            raise _unreadable()
        self.parts.append(part)
        self._text_bytes = 0
        self._pieces = None
        if filename is not None and part.name == self._wanted and self._left:
            self._left -= 1
            self._pieces = []

    def add(self, data: bytes, start: int, end: int) -> None:
        if self._pieces is not None:
            self._pieces.append(data[start:end] if end - start < _COPY_BYTES else memoryview(data)[start:end])
        elif self.parts[-1].filename is None:
            self._text_bytes += end - start
            if self._text_bytes > _MAX_TEXT_BYTES:
                raise _unreadable()

    def end(self) -> None:
        if self._pieces is not None:
            self.parts[-1].data = b"".join(self._pieces)  # the only copy
            self._pieces = None

    def finish(self) -> None:
        self.complete = True


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
