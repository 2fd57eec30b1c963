"""Which checkpoints may be asked for over HTTP: what is bundled, what the registry knows, and files inside one folder.

Whoever holds an admin key chooses among what the operator of this machine put there; no other file is looked at, and nothing is
fetched from where a client says. It opens no file: it follows names and symbolic links only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from app.errors import ReferenceForbidden
from model.hub import CONFIG_FILE, WEIGHT_FILES
from model.registry import WEIGHTS

MAX_LENGTH = 1024  # characters of a reference
BUNDLED = "bundled:"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # hf-hub:, http:, file: and the like; ./a:b is a file


def allowed(reference: str, folder: Path | None) -> str:
    """The reference as `model.reference` reads it; of a file its real path, so that no link can be changed behind this check.

    Args:
        folder: where files may be; relative paths begin there. None allows no files.

    Raises:
        ReferenceForbidden: it leads elsewhere. Whether there is anything at that place is not told.
    """
    if reference in WEIGHTS or (reference.startswith(BUNDLED) and "/" not in reference):
        return reference
    try:
        found = _inside(reference, folder)
    except (OSError, ValueError, RuntimeError):  # NUL, half a surrogate pair, a name too long, links in a circle
        found = None
    if found is None:
        raise ReferenceForbidden(reference, _allowed(folder))
    return str(found)


def same(reference: str, configured: str) -> bool:
    """Whether an allowed reference is the checkpoint that the settings name, so that what else they say of it holds here too."""
    if reference == configured:
        return True
    try:
        return Path(configured).expanduser().resolve() == Path(reference)
    except (OSError, ValueError, RuntimeError):
        return False


def _inside(reference: str, folder: Path | None) -> Path | None:
    if folder is None or not reference.strip() or _SCHEME.match(reference) or ".." in Path(reference).parts:
        return None
    root = folder.resolve()
    path = (root / reference).resolve()
    if not path.is_relative_to(root) or path == root:
        return None
    return path if all(each.resolve().is_relative_to(root) for each in _read_with(path)) else None


def _read_with(path: Path) -> Iterator[Path]:
    """What is read because this is: of a folder its files, of a file the card and the graphs beside it."""
    place = path if path.is_dir() else path.parent
    yield from (place / name for name in (CONFIG_FILE, *WEIGHT_FILES, "graphs"))
    yield path.with_suffix(".json")


def _allowed(folder: Path | None) -> list[str]:
    files = "paths inside SKNET_MODEL_DIR" if folder else "no paths, since SKNET_MODEL_DIR is not set"
    return [f"{BUNDLED}NAME", *WEIGHTS, files]
