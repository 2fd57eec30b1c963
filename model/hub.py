"""Weights from the Hugging Face hub: fetched with a progress bar, cached, verified, and used offline afterwards.

The library behind it reads HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE itself. This file knows nothing of what is
inside the files, and lets no error of the library out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from model.digest import sha256_of
from model.errors import CheckpointCorrupt, CheckpointNotFound

CONFIG_FILE = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # in order of preference: the first cannot carry code


@dataclass(frozen=True)
class HubFiles:
    """Files of one commit in the cache. `sha256` is that of the weights, computed here and compared with what the hub told."""

    config: Path
    weights: Path
    sha256: str


@dataclass(frozen=True)
class _Request:
    repository: str
    revision: str | None
    cache_dir: Path | None
    offline: bool

    def __str__(self) -> str:
        return f"hf-hub:{self.repository}" + (f"@{self.revision}" if self.revision else "")


def fetch(repository: str, revision: str | None = None, *, cache_dir: Path | None = None, offline: bool = False) -> HubFiles:
    """Download what is not in the cache yet, and verify the weights against the SHA-256 that the hub gave for them.

    Configuration and weights come from the same commit. A commit that is in the cache needs no network.

    Raises:
        CheckpointNotFound: no such repository, revision or file, or no network and nothing in the cache.
        CheckpointCorrupt: the weights are not what the hub says they are.
    """
    request = _Request(repository, revision, cache_dir, offline)
    with _one_sentence(request):
        config = _download(request, CONFIG_FILE, revision)
        weights = _download_weights(request, commit=config.parent.name)
        told = _sha256_told(request, weights)
    digest = sha256_of(weights)
    if told not in (None, digest):
        raise CheckpointCorrupt(
            f"{request}: {weights.name} has SHA-256 {digest}, the hub says {told}: the file is damaged; "
            + _discard(request, weights)
        )
    return HubFiles(config, weights, digest)


def _prepare_library() -> None:
    # Read by the library when it is imported; what the user set wins. Xet would go past a mirror named by HF_ENDPOINT.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")


def _download(request: _Request, name: str, revision: str | None, *, offline: bool = False) -> Path:
    _prepare_library()
    from huggingface_hub import hf_hub_download

    local_only = request.offline or offline
    return Path(
        hf_hub_download(request.repository, name, revision=revision, cache_dir=request.cache_dir, local_files_only=local_only)
    )


def _download_weights(request: _Request, commit: str) -> Path:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return _download(request, WEIGHT_FILES[0], commit)
    except EntryNotFoundError as error:
        # Without an answer from the hub, the other name is looked for in the cache alone: no second round of retries.
        return _download(request, WEIGHT_FILES[1], commit, offline=isinstance(error, LocalEntryNotFoundError))


def _sha256_told(request: _Request, weights: Path) -> str | None:
    """What the hub said the weights' SHA-256 is, from our record, from the cache's own, or asked for now and recorded."""
    record = _record(weights)
    recorded = _read_record(record)
    if recorded is not None:
        return recorded
    told = _sha256_in_cache(weights) or _sha256_asked(request, weights.name, weights.parent.name)
    if told is not None:
        with suppress(OSError):  # a cache mounted read-only: asked again the next time
            _write_record(record, told)
    return told


def _record(weights: Path) -> Path:
    return weights.parents[2] / ".sha256" / weights.parent.name / weights.name  # beside `blobs`, `refs` and `snapshots`


def _read_record(record: Path) -> str | None:
    """None for a damaged record as for a missing one: it must not condemn weights that are in order."""
    try:
        return _as_sha256(record.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError):
        return None


def _write_record(record: Path, told: str) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    partial = record.with_name(f"{record.name}.{os.getpid()}.partial")  # other processes may be writing the same record
    partial.write_text(told + "\n", encoding="ascii")
    partial.replace(record)


def _sha256_in_cache(weights: Path) -> str | None:
    """The library names a blob after the tag that the hub gave it: for weights, their SHA-256."""
    return _as_sha256(weights.readlink().name) if weights.is_symlink() else None


def _sha256_asked(request: _Request, name: str, commit: str) -> str | None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if _is_offline(request):
        return None
    return _as_sha256(get_hf_file_metadata(hf_hub_url(request.repository, name, revision=commit)).etag)


def _as_sha256(tag: str | None) -> str | None:
    return tag if tag and re.fullmatch(r"[0-9a-f]{64}", tag) else None  # small files are tagged with git's SHA-1


def _is_offline(request: _Request) -> bool:
    from huggingface_hub import is_offline_mode

    return request.offline or is_offline_mode()


def _discard(request: _Request, weights: Path) -> str:
    """Take a damaged file out of the cache where it can be fetched again, and its record with it; say what was done."""
    by_hand = f"delete {weights} and download it again"
    if _is_offline(request):
        return by_hand
    try:
        for path in (weights.resolve(), weights, _record(weights)):
            path.unlink(missing_ok=True)
    except OSError as error:
        return f"it cannot be deleted from the cache ({error.strerror}), {by_hand}"
    return "it was deleted from the cache, try again"


@contextmanager
def _one_sentence(request: _Request) -> Iterator[None]:
    _prepare_library()
    import httpx2  # the library's own HTTP client, whose errors it lets through
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointNotFound(f"{request} is gated: accept its terms on the hub and give a token in HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointNotFound(f"{request}: the hub has no such repository, or it is private and needs HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointNotFound(f"{request}: the repository has no such revision") from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointNotFound(f"{request} is not in the cache, and {_why_not_asked(request, error)}") from error
    except errors.EntryNotFoundError as error:
        raise CheckpointNotFound(
            f"{request}: the repository lacks {CONFIG_FILE}, or weights named {' or '.join(WEIGHT_FILES)}"
        ) from error
    except errors.HfHubHTTPError as error:
        raise CheckpointNotFound(f"{request}: the hub answered with status {error.response.status_code}") from error
    except errors.HFValidationError as error:
        raise CheckpointNotFound(f"{request} is no name that the hub allows") from error
    except (httpx2.HTTPError, errors.OfflineModeIsEnabled) as error:
        raise CheckpointNotFound(f"{request}: the hub cannot be reached ({type(error).__name__})") from error
    except OSError as error:
        if error.strerror:  # the disk is full or the cache is no folder of ours
            raise CheckpointNotFound(f"{request} cannot be kept in the cache: {error.strerror}") from error
        raise CheckpointCorrupt(f"{request}: the download stopped short, try again") from error


def _why_not_asked(request: _Request, error: Exception) -> str:
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError

    if _is_offline(request):
        return "offline mode forbids asking the hub"
    if isinstance(error.__cause__, HfHubHTTPError):
        return f"the hub answered with status {error.__cause__.response.status_code}"
    if isinstance(error.__cause__, FileMetadataError):
        return "the answer is not that of a hub: check HF_ENDPOINT"
    return "the hub cannot be reached"
