"""What somebody names on the command line -> images to read: files, folders, patterns, standard input.

Opens none of them: what is an image in a folder is told by its suffix.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from app.image_files import Source, is_image, read_file, read_stdin, reason

STDIN = "-"


class NoImages(ValueError):
    """A path that leads to no image; the text says which one, and why."""


@dataclass(frozen=True)
class Found:
    """Images in order, and what stood in the way: (a folder that cannot be listed, why)."""

    sources: list[Source] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)


def find(paths: Iterable[str]) -> Found:
    """The images that these name: files as they are; folders with all below, and patterns (`*`, `?`, `[...]`, `**`), where they
    have an image's suffix. What is hidden is found only by its own name. In the order given, in a folder as people count.

    Raises:
        NoImages: nothing there, or no image in it; standard input twice.
    """
    found, stdin = Found(), 0
    for path in paths:
        if not path:
            raise NoImages("a path is empty")
        if path == STDIN:
            stdin += 1
            found.sources.append(Source(STDIN, read_stdin))
        elif Path(path).is_dir():
            _add(found, walk(path, found.faults), f"there are no images in {path}")
        elif Path(path).exists():
            found.sources.append(Source(path, read_file))
        elif glob.has_magic(path):
            _add(found, _matching(path, found.faults), f"no image matches {path}")
        else:
            raise NoImages(f"there is no {path}")
    if stdin > 1:
        raise NoImages("standard input is one image: give - once")
    return found


def walk(folder: str, faults: list[tuple[str, str]]) -> list[str]:
    """Every file below a folder that has an image's suffix, but hidden ones, as people count; what cannot be listed goes to
    `faults`."""

    def fault(error: OSError) -> None:
        faults.append((str(error.filename), reason(error)))

    names = []
    for place, folders, files in os.walk(folder, onerror=fault):
        folders[:] = [name for name in folders if not name.startswith(".")]
        within = f"{place.removesuffix('/')}/"
        within = within.removeprefix("./") if folder == "." else within
        names += [within + name for name in files if not name.startswith(".") and is_image(name)]
    return sorted(names, key=counting)


def counting(path: str) -> tuple[list[list[int | str]], str]:
    """A key by which paths sort as people count: img2 before img10, and a folder's files together."""
    parts = (re.split("([0-9]+)", part) for part in PurePath(path).parts)  # text and numbers in turn
    return [[int(bit) if i % 2 else bit.casefold() for i, bit in enumerate(bits)] for bits in parts], path


def listed(data: bytes, *, nul: bool) -> list[Source]:
    """The files in a list of paths: one a line, or each ended by a zero byte. Empty ones are none."""
    parts = data.split(b"\0") if nul else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    return [Source(os.fsdecode(part), read_file) for part in parts if part]


def _matching(pattern: str, faults: list[tuple[str, str]]) -> list[str]:
    names: dict[str, None] = {}  # `**` gives a folder, and what is in it
    for path in sorted(glob.glob(pattern, recursive=True), key=counting):  # noqa: PTH207 - of a whole pattern, perhaps absolute
        names.update(dict.fromkeys(walk(path, faults) if Path(path).is_dir() else [path] if is_image(path) else []))
    return list(names)


def _add(found: Found, names: list[str], otherwise: str) -> None:
    if not names and not found.faults:
        raise NoImages(otherwise)
    found.sources.extend(Source(name, read_file) for name in names)
