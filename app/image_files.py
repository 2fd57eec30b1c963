"""An image to be read, whatever holds it: a file, a pipe, standard input, a member of an archive.

Reads bytes, bounded, and looks into none of them. Which images there are is found elsewhere (`app.paths`).
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
)
MAX_BYTES = 100_000_000  # of an image: a film among the photographs is not read into memory


class Unreadable(Exception):
    """An image whose bytes cannot be had; the text says why, and does not name it."""


@dataclass(frozen=True, slots=True)
class Source:
    """An image that can be read: what it is called, and who reads what is called so."""

    name: str
    reader: Callable[[str], bytes]

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            Unreadable: it is not there, may not be read, or has more than `MAX_BYTES`.
        """
        return self.reader(self.name)


def is_image(name: str) -> bool:
    """Whether the suffix is an image's."""
    return PurePath(name).suffix.lower() in SUFFIXES


def read_file(path: str) -> bytes:
    """The bytes of a file, or of a pipe; raises as `Source.read`."""
    try:
        with Path(path).open("rb", buffering=0) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                return _until_end(file.read)
            hold(about.st_size)
            return file.read()
    except OSError as error:
        raise Unreadable(reason(error)) from error
    except ValueError as error:
        raise Unreadable("no file can have that name") from error


def read_stdin(_name: str) -> bytes:
    """All of standard input; raises as `Source.read`."""
    return _until_end(sys.stdin.buffer.read)


def hold(size: int) -> None:
    """Raises Unreadable where an image has too many bytes."""
    if size > MAX_BYTES:
        raise Unreadable(f"larger than {MAX_BYTES // 1_000_000} MB")


def reason(error: OSError) -> str:
    """What the system says of it, without the name of the file."""
    return error.strerror or type(error).__name__


def _until_end(read: Callable[[int], bytes | None]) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := read(1 << 20):
        parts.append(part)
        size += len(part)
        hold(size)
    return b"".join(parts)
