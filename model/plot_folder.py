"""A folder of its own for what the plotting library keeps, instead of one in the user's home.

It is held by a lock as long as the process that made it lives. Whoever makes one clears away those that were left behind by
processes that were killed. This file knows nothing of figures.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "sknet-figures-"
LEFT_BEHIND_S = 3600  # far longer than it takes to lock a new one


class PlotFolder:
    """A new folder, which nobody but this user can read.

    Raises:
        OSError: there is no place for one.
    """

    def __init__(self) -> None:
        _sweep(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            self._held = _locked(self.path)
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def remove(self) -> None:
        """Delete it with everything in it. Once."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._held)


def _sweep(place: Path) -> None:
    for left in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, in use, or swept by another process
            if time.time() - left.lstat().st_mtime < LEFT_BEHIND_S or left.lstat().st_uid != os.getuid():
                continue
            held = _locked(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)


def _locked(path: Path) -> int:
    """The folder's descriptor, which holds it. The system ends the hold with the process, however that ends.

    Raises:
        OSError: another process holds it, or it is no folder.
    """
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    return held
