"""Answers as people and programs read them: an aligned table, JSON lines, CSV. Knows nothing of where the text goes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Protocol

from app.answers import Answer

CSV_FIELDS = ("file", "rank", "index", "label", "wnid", "score", "error")
SCORE = 6  # columns of a score
LABEL = 24  # columns of a label, where they fit
NAME = 16  # columns of a file's name, at least


class Form(Protocol):
    """How answers look: text, with its line ends."""

    def head(self) -> str:
        """What stands before all of them."""

    def text(self, answer: Answer) -> str:
        """One of them; may be nothing."""


class Table:
    """Rows of file, label and score. Errors are no rows: they are told elsewhere.

    Args:
        names: of all images, so that the columns stay where they are.
        width: columns of the terminal, which longer texts are shortened to; None leaves them as they are.
    """

    def __init__(self, names: Iterable[str], min_score: float, width: int | None) -> None:
        self._min_score = min_score
        longest = max((columns_of(shown(name)) for name in names), default=0)
        self._name = longest if width is None else min(longest, max(NAME, width - LABEL - SCORE - 4))
        self._label = None if width is None else max(8, width - self._name - SCORE - 4)

    def head(self) -> str:
        """Nothing."""
        return ""

    def text(self, answer: Answer) -> str:
        """A line for each prediction, the file's name on the first."""
        if answer.error is not None:
            return ""
        name = padded(shortened(shown(answer.name), self._name, front=True), self._name)
        lines = []
        for prediction in answer.kept(self._min_score):
            label = shown(prediction.label)
            label = padded(label if self._label is None else shortened(label, self._label), min(LABEL, self._label or LABEL))
            lines.append(f"{name}  {label}  {prediction.score:.4f}\n")
            name = " " * self._name
        return "".join(lines) or f"{name}  -\n"


class JsonLines:
    """An object a line, failed images included."""

    def __init__(self, min_score: float) -> None:
        self._min_score = min_score

    def head(self) -> str:
        """Nothing."""
        return ""

    def text(self, answer: Answer) -> str:
        """The object."""
        return json.dumps(answer.document(self._min_score)) + "\n"


class Csv:
    """RFC 4180: a row for each prediction, one for an image without any."""

    def __init__(self, min_score: float) -> None:
        self._min_score = min_score

    def head(self) -> str:
        """The names of the columns."""
        return csv_rows([CSV_FIELDS])

    def text(self, answer: Answer) -> str:
        """The rows."""
        kept = enumerate(answer.kept(self._min_score), start=1)
        rows = [(answer.name, rank, p.index, p.label, p.wnid, p.score, answer.error) for rank, p in kept]
        return csv_rows(rows or [(answer.name, None, None, None, None, None, answer.error)])


def csv_rows(rows: Iterable[Sequence[object]]) -> str:
    """Rows of RFC 4180: commas, CRLF, quotes where they are needed."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()


def shown(text: str) -> str:
    """A text for a terminal: what could move its cursor, and the rest that cannot be printed, as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: some letters of Asia take two."""
    if text.isascii():
        return len(text)
    from tqdm.utils import disp_len

    return int(disp_len(text))


def shortened(text: str, columns: int, *, front: bool = False) -> str:
    """A text of at most so many columns, with dots for what was left out at its end, or at its front."""
    if columns_of(text) <= columns:
        return text
    kept = list(reversed(text)) if front else list(text)
    while kept and columns_of("".join(kept)) > columns - 1:
        kept.pop()
    return "\N{HORIZONTAL ELLIPSIS}" + "".join(reversed(kept)) if front else "".join(kept) + "\N{HORIZONTAL ELLIPSIS}"


def padded(text: str, columns: int) -> str:
    """A text of at least so many columns."""
    return text + " " * (columns - columns_of(text))
