"""What somebody names on the command line -> images to read: files, folders, patterns, standard input.

Opens none of them: what is an image in a folder is told by its suffix.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import IO

from app.image_files import Source, is_image, read_file, read_found, read_stdin
from model.folders import Entry, Fault, Folder, below, entries, files_below, is_folder, reason, start

STDIN = "-"
MAX_LIST_BYTES = 1_000_000_000  # of a list of paths


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
    Links are followed, but not back to a folder that they lie in.

    Raises:
        NoImages: nothing there, nothing that can be looked at, or no image in it; standard input twice.
    """
    found, stdin = Found(), 0
    for path in paths:
        if not path:
            raise NoImages("a path is empty")
        if path == STDIN:
            stdin += 1
            found.sources.append(Source(STDIN, read_stdin))
        elif is_folder(path):
            faults: list[Fault] = []
            _add(found, walk(path, faults), faults, f"there are no images in {path}")
        elif _exists(path):
            found.sources.append(Source(path, read_file))
        else:
            faults = []
            _add(found, _matching(path, faults), faults, f"no image matches {path}")
    if stdin > 1:
        raise NoImages("standard input is one image: give - once")
    return found


def walk(folder: str, faults: list[Fault]) -> list[str]:
    """Every file below a folder that has an image's suffix, but hidden ones, as people count; what cannot be listed goes to
    `faults`."""
    try:
        files = files_below(folder, faults)
    except OSError as error:
        faults.append((folder, reason(error)))
        return []
    return sorted(filter(is_image, files), key=counting)


def counting(path: str) -> tuple[list[list[tuple[int, str]]], str]:
    """A key by which paths sort as people count: img2 before img10, and a folder's files together."""
    parts = (re.split("([0-9]+)", part) for part in PurePath(path).parts)  # text and numbers in turn
    return [[_number(bit) if i % 2 else (0, bit.casefold()) for i, bit in enumerate(bits)] for bits in parts], path


def listed(file: IO[bytes], *, nul: bool) -> list[Source]:
    """The files in a list of paths: one a line, or each ended by a zero byte. Empty ones are none.

    Raises:
        NoImages: the list has more than `MAX_LIST_BYTES`.
        OSError: it cannot be read.
    """
    data = file.read(MAX_LIST_BYTES + 1)
    if len(data) > MAX_LIST_BYTES:
        raise NoImages(f"the list of paths is larger than {MAX_LIST_BYTES // 1_000_000} MB: give it in parts")
    parts = data.split(b"\0") if nul else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    return [Source(os.fsdecode(part), read_file) for part in parts if part]


def _number(digits: str) -> tuple[int, str]:
    """Sorts as the number does, which may have more digits than Python turns into one."""
    digits = digits.lstrip("0")
    return len(digits), digits


def _exists(path: str) -> bool:
    """Raises NoImages where nothing is there, and it is no pattern either."""
    try:
        if Path(path).exists():
            return True
    except OSError as error:  # a pattern may be longer than any name
        if not glob.has_magic(path):
            raise NoImages(f"{path}: {reason(error)}") from error
    if not glob.has_magic(path):
        raise NoImages(f"there is no {path}")
    return False


def _matching(pattern: str, faults: list[Fault]) -> list[str]:
    pieces = pattern.split("/")
    first = next(i for i, piece in enumerate(pieces) if glob.has_magic(piece))
    try:
        folders = [start("/".join(pieces[:first]) or ("/" if first else "."))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        faults.append(("/".join(pieces[:first]), reason(error)))
        return []
    files: list[str] = []
    for at, piece in enumerate(pieces[first:], start=first + 1):
        if piece == "**":  # at the end it adds nothing: a folder stands for all below
            files = []
            if at < len(pieces):
                folders = _once(place for folder in folders for place, _ in below(folder, faults))
        elif piece not in ("", "."):
            matches = [each for folder in folders for each in entries(folder, faults) if _fits(each, piece)]
            folders = _once(each.folder for each in matches if each.folder is not None)
            files = [each.path for each in matches if each.folder is None]
    files = [] if pattern.endswith("/") else files
    for folder in _topmost(folders):
        files += [each.path for _, inside in below(folder, faults) for each in inside if _fits(each, "*") and not each.folder]
    return sorted({name for name in files if is_image(name)}, key=counting)


def _fits(entry: Entry, piece: str) -> bool:
    return (piece.startswith(".") or not entry.name.startswith(".")) and fnmatchcase(entry.name, piece)


def _once(folders: Iterable[Folder]) -> list[Folder]:
    return list({folder.path: folder for folder in folders}.values())


def _topmost(folders: list[Folder]) -> list[Folder]:
    paths = {folder.path for folder in folders}
    return [folder for folder in folders if not any(str(parent) in paths for parent in PurePath(folder.path).parents)]


def _add(found: Found, names: list[str], faults: list[Fault], otherwise: str) -> None:
    if not names and not faults:
        raise NoImages(otherwise)
    found.sources.extend(Source(name, read_found) for name in names)
    found.faults.extend(dict.fromkeys(faults))
