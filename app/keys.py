"""API keys: who may ask, and for what. Several, each with a name and scopes; a file of them is read again when it changes.

Only digests are held. SHA-256 alone is enough for them, unlike for passwords: a key is 256 random bits, which nobody finds by
trying, however quick the digest. It knows no HTTP, and nothing it says or raises holds any part of an entry.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import stat
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.settings import PREFIX, Settings, SettingsError

logger = logging.getLogger("sknet.keys")

PREDICT, ADMIN = "predict", "admin"
SCOPES = (PREDICT, ADMIN, f"{PREDICT}+{ADMIN}")  # admin does not imply predict: what swaps models need not classify
SHORTEST, LONGEST = 16, 512  # characters of a key
MOST_KEYS = 1000  # each is compared with at every request
MOST_BYTES = 1_000_000  # of the file
LOOK_S = 1.0  # between two looks at the file

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what fits behind "Bearer" (RFC 6750, section 2.1)
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_COMMENT = re.compile(r"(^|\s)#.*")
_Mark = tuple[int, ...] | None  # tells one state of a file from another; None: it cannot be read


class KeysError(ValueError):
    """Keys that cannot be used; the text says where, and never shows an entry."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key, but for the key itself. `plain`: it was written down as it is, not as its digest."""

    name: str
    scopes: frozenset[str]
    digest: bytes = field(repr=False)
    plain: bool


def new_key(name: str, scopes: str) -> tuple[str, str]:
    """A fresh key of 256 random bits, and its entry for the file, which does not hold it."""
    key = "sknet-" + secrets.token_urlsafe(32)
    return key, f"{name}:{scopes}:sha256:{_digest(key.encode()).hex()}"


def is_name(text: str) -> bool:
    """Whether a key may be named so."""
    return _NAME.fullmatch(text) is not None


def parse(entry: str, default_name: str) -> Key:
    """KEY (which may predict), NAME:SCOPES:KEY or NAME:SCOPES:sha256:HEX.

    Raises:
        KeysError: it is none of them; in words, without the entry.
    """
    parts = entry.split(":")
    if len(parts) == 1:
        parts = [default_name, PREDICT, *parts]
    plain = len(parts) == 3
    if not plain and (len(parts) != 4 or parts[2].lower() != "sha256"):
        raise KeysError("an entry is KEY, NAME:SCOPES:KEY or NAME:SCOPES:sha256:HEX")
    name, scopes, key = parts[0], parts[1], parts[-1]
    if not is_name(name):
        raise KeysError("a name has 1 to 64 letters, digits, dots, dashes or underscores")
    if scopes not in (*SCOPES, f"{ADMIN}+{PREDICT}"):
        raise KeysError(f"scopes are {', '.join(SCOPES[:-1])} or {SCOPES[-1]}")
    if not plain and not _DIGEST.fullmatch(key):
        raise KeysError("a digest has 64 hexadecimal digits")
    if plain and not SHORTEST <= len(key) <= LONGEST:
        raise KeysError(f"a key has {SHORTEST} to {LONGEST} characters; `sknet keys new` makes one")
    if plain and not _KEY.fullmatch(key):
        raise KeysError("a key has letters, digits and any of - . _ ~ + / with = at its end")
    return Key(name, frozenset(scopes.split("+")), _digest(key.encode()) if plain else bytes.fromhex(key), plain)


def read_entries(entries: Iterable[tuple[str, str, str]]) -> tuple[Key, ...]:
    """The keys of (place, default name, entry).

    Raises:
        KeysError: one cannot be used, or is there twice.
    """
    keys: dict[str, Key] = {}
    digests: set[bytes] = set()
    for place, default_name, entry in entries:
        try:
            key = parse(entry, default_name)
            if key.name in keys:
                raise KeysError("its name is that of an entry before it")
            if key.digest in digests:
                raise KeysError("its key is that of an entry before it")
            if len(keys) == MOST_KEYS:
                raise KeysError(f"at most {MOST_KEYS} keys can be held")
        except KeysError as error:
            raise KeysError(f"{place}: {error}") from None
        keys[key.name] = key
        digests.add(key.digest)
    return tuple(keys.values())


class Keys:
    """The keys of a service as they are now: those of the variable, and those of the file at its last good reading."""

    def __init__(self, variable: str | None, path: Path | None) -> None:
        """Raises:
        KeysError: an entry or the file cannot be used, or there is no key at all.
        """
        self._entries = [
            (f"{PREFIX}API_KEYS, entry {i}", f"key-{i}", entry.strip())
            for i, entry in enumerate((variable or "").split(","), start=1)
            if entry.strip()
        ]
        self._path = path
        self._mark = self._seen = _mark(path) if path else None  # at the last reading, and at the last look
        self._keys = self._read()
        self._stopped = threading.Event()

    @classmethod
    def of(cls, settings: Settings) -> Keys | None:
        """The keys that the settings name; None where they name none.

        Raises:
            SettingsError: they cannot be used.
        """
        if settings.api_keys is None and settings.api_keys_file is None:
            return None
        variable = settings.api_keys.get_secret_value() if settings.api_keys else None
        try:
            return cls(variable, settings.api_keys_file)
        except KeysError as error:
            raise SettingsError(str(error)) from None

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def file_gives_keys_away(self) -> bool:
        """Whether every user of this machine can read the file, and find in it more than digests."""
        own = len(self._entries)
        if self._path is None or not any(key.plain for key in self._keys[own:]):
            return False
        return bool(self._path.stat().st_mode & stat.S_IROTH)

    def find(self, presented: bytes) -> Key | None:
        """The key that this is. Every one is compared with, in constant time, so that the time taken tells nothing."""
        if len(presented) > LONGEST:
            return None
        digest = _digest(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def start(self) -> None:
        """Look at the file from now on, in a thread of its own: a file system that hangs must hold up nothing."""
        self._stopped = threading.Event()
        if self._path is not None:
            threading.Thread(target=self._watch, args=(self._stopped,), name="keys", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def look(self) -> None:
        """Read the file again if it changed, once it is the same at two looks: what is being written may end between two lines.

        What cannot be used leaves the keys as they were, and is logged once.
        """
        seen, self._seen = self._seen, _mark(self._path) if self._path else None
        if self._seen == self._mark or self._seen != seen:
            return
        keys, fault = self._keys, None
        try:
            keys = self._read()
        except KeysError as error:
            fault = error
        if self._path and _mark(self._path) != self._seen:  # it changed while it was read
            return
        self._mark = self._seen
        if fault is not None:
            logger.error("the keys stay as they were: %s", fault)
            return
        self._keys = keys
        logger.info("keys were read again; there are %d now", len(keys))

    def _watch(self, stopped: threading.Event) -> None:
        while not stopped.wait(LOOK_S):
            self.look()

    def _read(self) -> tuple[Key, ...]:
        entries = [*self._entries, *(_lines(self._path) if self._path else ())]
        if len(entries) == len(self._entries) and (self._path or not entries):  # a file without any is one half written
            raise KeysError(f"{_of(self._path) if self._path else PREFIX + 'API_KEYS'} holds no key")
        return read_entries(entries)


def _lines(path: Path) -> Sequence[tuple[str, str, str]]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, and could be read but once
            raise KeysError(f"{_of(path)} is no file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise KeysError(f"{_of(path)} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeysError(f"{_of(path)} is no text in UTF-8") from None
    if len(data) > MOST_BYTES:
        raise KeysError(f"{_of(path)} has more than {MOST_BYTES} bytes")
    lines = [_COMMENT.sub("", line).strip() for line in text.splitlines()]
    return [(f"{_of(path)}, line {i}", f"line-{i}", line) for i, line in enumerate(lines, start=1) if line]


def _of(path: Path) -> str:
    return f"{PREFIX}API_KEYS_FILE ({path})"


def _mark(path: Path) -> _Mark:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
