"""Images whose class is told by their folder: in a folder of such folders, or a zip archive of them.

Knows no classes: what a folder's name means is for others to say.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from lzma import LZMAError

from app.image_files import MAX_BYTES, Source, Unreadable, hold, is_image, read_found
from app.paths import NoImages, counting, walk
from model.folders import Fault, is_folder, reason


@dataclass(frozen=True)
class Labelled:
    """Images by the name of their class folder, in order; those that lie in none; (a folder that cannot be listed, why); the
    folders that were stepped into, the outermost first."""

    folders: dict[str, list[Source]] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    stepped: list[str] = field(default_factory=list)

    def by(self, classes: Container[str]) -> dict[str, list[Source]]:
        """Images by class folder, where a folder that was stepped into may have been the only class.

        Raises:
            NoImages: that folder and one in it are both named by a class.
        """
        only = [name for name in self.stepped if name in classes]
        if not only:
            return self.folders
        inner = next((name for name in [*only[1:], *self.folders] if name in classes), None)
        if inner is not None:
            raise NoImages(f"the folders {only[0]!r} and {inner!r} in it are both named by a class: give the one of the classes")
        return {only[0]: [source for inside in self.folders.values() for source in inside]}


def labelled(path: str) -> Labelled:
    """The images below a folder or in a zip archive, by the folders that they lie in.

    A folder that holds nothing but one folder of folders is stepped into; `Labelled.by` takes that back where it is a class.

    Raises:
        NoImages: nothing there, no archive, or no image in a class folder.
    """
    found = Labelled()
    if is_folder(path):
        root = f"{path.removesuffix('/')}/"
        names = [name.removeprefix(root) for name in walk(root, found.faults)]
        _sort(found, names, lambda name: Source(root + name, read_found))
    else:
        archive = Archive(path)
        _sort(found, archive.names(), lambda name: Source(name, archive.read))
    if not found.folders and not found.faults:
        raise NoImages(f"{path} has no images in folders named by class")
    return found


class Archive:
    """The images in a zip archive. May be read from several threads at once.

    Raises:
        NoImages: no zip archive, or a damaged one.
    """

    def __init__(self, path: str) -> None:
        try:
            self._zipped = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise NoImages(f"there is no {path}") from error
        except OSError as error:
            raise NoImages(f"{path}: {reason(error)}") from error
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise NoImages(f"{path} is no folder, and no zip archive or a damaged one") from error

    def names(self) -> list[str]:
        """The members with an image's suffix, but hidden ones and what macOS adds, as people count. Of several with one name the
        last counts, as where an archive is unpacked."""
        names = (name for name in dict.fromkeys(self._zipped.namelist()) if is_image(name) and not name.endswith("/"))
        hidden = ("__MACOSX",)
        kept = (name for name in names if not any(part in hidden or part.startswith(".") for part in name.split("/")))
        return sorted(kept, key=counting)

    def read(self, name: str) -> bytes:
        """One member.

        Raises:
            Unreadable: it is damaged, encrypted, compressed in an unknown way, or has more than `MAX_BYTES`.
        """
        try:
            with self._zipped.open(name) as member:
                data = member.read(MAX_BYTES + 1)  # whatever size the directory tells
        except NotImplementedError as error:
            raise Unreadable("it is compressed in a way that is not read here") from error
        except RuntimeError as error:  # zipfile's word for it
            raise Unreadable("it is encrypted") from error
        except (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError, ValueError) as error:
            raise Unreadable("it is damaged in the archive") from error
        hold(len(data))
        return data


def _sort(found: Labelled, names: Sequence[str], source: Callable[[str], Source]) -> None:
    split = [name.split("/") for name in names]
    depth = 0
    while split and all(len(parts) > depth + 2 for parts in split) and len({parts[depth] for parts in split}) == 1:
        found.stepped.append(split[0][depth])
        depth += 1
    for parts, name in zip(split, names, strict=True):
        if len(parts) == depth + 1:
            found.outside.append(name)
        else:
            found.folders.setdefault(parts[depth], []).append(source(name))
