"""What lies in a folder and below it, links followed, each folder once on any way down. Knows no images, and opens nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

Fault = tuple[str, str]  # (what cannot be looked into, why)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder as it was come by, and which ones it lies in: (device, inode) of each on the way to it, its own included."""

    path: str
    way: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Entry:
    """What a folder holds: a folder where `folder` is set. Hidden ones are among them."""

    name: str
    path: str
    folder: Folder | None


def start(path: str) -> Folder:
    """A folder to begin with; a link is followed.

    Raises:
        OSError: nothing there, or it cannot be looked at.
    """
    about = Path(path).stat()
    if not stat.S_ISDIR(about.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return Folder(path, frozenset([(about.st_dev, about.st_ino)]))


def entries(folder: Folder, faults: list[Fault]) -> list[Entry]:
    """What it holds, by name. A link to a folder that this one lies in is none of them: it would go round for ever.

    What cannot be listed goes to `faults`, and so does a link that leads nowhere and may have been meant as a folder.
    """
    try:
        with os.scandir(folder.path) as listing:
            inside = sorted(listing, key=lambda each: each.name)
    except OSError as error:
        faults.append((folder.path, reason(error)))
        return []
    within = "" if folder.path == "." else f"{folder.path.removesuffix('/')}/"
    found = []
    for each in inside:
        path = within + each.name
        try:
            lower = _lower(each, path, folder)
        except OSError as error:
            if not PurePath(path).suffix and not each.name.startswith("."):
                faults.append((path, reason(error)))
                continue
            lower = None  # who wants the file is told when it is opened
        if lower is None or lower.way != folder.way:
            found.append(Entry(each.name, path, lower))
    return found


def below(folder: Folder, faults: list[Fault]) -> Iterator[tuple[Folder, list[Entry]]]:
    """This folder and all below but hidden ones, each with what it holds. However deep: nothing here calls itself."""
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        inside = entries(place, faults)
        yield place, inside
        waiting.extend(each.folder for each in reversed(inside) if each.folder is not None and not each.name.startswith("."))


def files_below(place: str | Folder, faults: list[Fault]) -> list[str]:
    """The paths of all that is no folder, below a folder, but hidden ones; in no order to rely on.

    Raises:
        OSError: the folder is not there, or cannot be looked at.
    """
    folder = start(place) if isinstance(place, str) else place
    every = (each for _, inside in below(folder, faults) for each in inside)
    return [each.path for each in every if each.folder is None and not each.name.startswith(".")]


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there; False too where that cannot be known, as of a name that is too long."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def reason(error: OSError) -> str:
    """What the system says of it, without the name of the file."""
    return error.strerror or type(error).__name__


def _lower(entry: os.DirEntry[str], path: str, above: Folder) -> Folder | None:
    """The folder that an entry is, its way no longer than that above where it leads back there; None for what is no folder."""
    if not entry.is_symlink() and not entry.is_dir(follow_symlinks=False):
        return None
    about = entry.stat()
    if not stat.S_ISDIR(about.st_mode):
        return None
    return Folder(path, above.way | {(about.st_dev, about.st_ino)})
