"""An image to be read, whatever holds it: a file, a pipe, standard input, a member of an archive.

Reads bytes, bounded, and looks into none of them. Which images there are is found elsewhere (`app.paths`).
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath

from model.folders import reason

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
    """The bytes of a file, or of a pipe, which is waited for; raises as `Source.read`."""
    return _read(path, pipes=True)


def read_found(path: str) -> bytes:
    """The bytes of a file that nobody named: what would be waited for is refused; raises as `Source.read`."""
    return _read(path, pipes=False)


def at_hand(source: Source) -> Source:
    """The same; what is no plain file but a pipe is read now: a thread that waits for one could not be interrupted."""
    try:
        if source.reader is not read_file or stat.S_ISREG(Path(source.name).stat().st_mode):
            return source
        data = source.read()
    except (OSError, ValueError):
        return source  # it says why when it is read
    except Unreadable as error:
        return replace(source, reader=partial(_refuse, error))
    return replace(source, reader=lambda _name: data)


def read_stdin(_name: str) -> bytes:
    """All of standard input; raises as `Source.read`."""
    return _until_end(sys.stdin.buffer.read)


def hold(size: int) -> None:
    """Raises Unreadable where an image has too many bytes."""
    if size > MAX_BYTES:
        raise Unreadable(f"larger than {MAX_BYTES // 1_000_000} MB")


def _read(path: str, *, pipes: bool) -> bytes:
    wait = 0 if pipes else os.O_NONBLOCK
    try:
        with io.FileIO(path, opener=lambda name, flags: os.open(name, flags | wait)) as file:
            about = os.fstat(file.fileno())
            if stat.S_ISREG(about.st_mode):
                hold(about.st_size)
                return file.read()
            if not pipes:
                raise Unreadable("no file but a pipe or a device")
            return _until_end(file.read)
    except OSError as error:
        raise Unreadable(reason(error)) from error
    except ValueError as error:
        raise Unreadable("no file can have that name") from error


def _refuse(error: Unreadable, _name: str) -> bytes:
    raise error


def _until_end(read: Callable[[int], bytes | None]) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := read(1 << 20):
        parts.append(part)
        size += len(part)
        hold(size)
    return b"".join(parts)
