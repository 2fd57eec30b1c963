"""Hashes of bytes: the right ones, and large ones off the loop."""

from __future__ import annotations

import asyncio
import hashlib
import threading

import pytest

from app.errors import DeadlinePassed, NotReady
from app.fingerprint import AT_ONCE_BYTES, Fingerprints

FAR = 1e9


@pytest.mark.parametrize("size", [0, 1, AT_ONCE_BYTES, AT_ONCE_BYTES + 1, 3_000_000])
async def test_it_is_the_sha256(size: int) -> None:
    fingerprints = Fingerprints()
    data = b"x" * size
    assert await fingerprints.of(data, deadline=FAR, limit_s=FAR) == hashlib.sha256(data).digest()
    await fingerprints.close()


async def test_what_is_large_is_hashed_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    sha256 = hashlib.sha256

    def watched(data: bytes) -> object:
        threads.append(threading.current_thread().name)
        return sha256(data)

    monkeypatch.setattr("app.fingerprint.hashlib.sha256", watched)
    fingerprints = Fingerprints()
    await fingerprints.of(b"x", deadline=FAR, limit_s=FAR)
    await fingerprints.of(b"x" * (AT_ONCE_BYTES + 1), deadline=FAR, limit_s=FAR)
    assert threads[0] == threading.current_thread().name
    assert threads[1].startswith("hash")
    await fingerprints.close()


async def test_what_is_large_and_late_is_not_hashed() -> None:
    fingerprints = Fingerprints()
    large = b"x" * (AT_ONCE_BYTES + 1)
    with pytest.raises(DeadlinePassed):
        await fingerprints.of(large, deadline=asyncio.get_running_loop().time() - 1, limit_s=1)
    await fingerprints.close()
    with pytest.raises(NotReady):
        await fingerprints.of(large, deadline=FAR, limit_s=1)
