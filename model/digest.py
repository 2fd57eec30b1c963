"""SHA-256 of files. Knows nothing of what is in them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from tqdm import tqdm

from model.errors import CheckpointCorrupt, CheckpointNotFound

_CHUNK = 1 << 20
_BAR_FROM_BYTES = 256 << 20  # smaller files are hashed before anybody wonders


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as 64 lower-case digits; a large file shows a progress bar on a terminal.

    Raises:
        CheckpointNotFound: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        # disable=None: shown on a terminal, not in logs.
        silent = None if size >= _BAR_FROM_BYTES else True
        with path.open("rb") as file, tqdm(total=size, unit="B", unit_scale=True, desc="checking", disable=silent) as bar:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                bar.update(len(chunk))
    except OSError as error:
        raise CheckpointNotFound(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def parse_sha256(pin: str) -> str:
    """A pin written by a person, with or without "sha256:", as 64 lower-case digits.

    Raises:
        CheckpointCorrupt: it is no SHA-256.
    """
    digits = pin.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise CheckpointCorrupt(f"{pin!r} is no SHA-256: give 64 hexadecimal digits")
    return digits
