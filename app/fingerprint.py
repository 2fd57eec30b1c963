"""Bytes -> SHA-256, without holding up the event loop. Knows nothing of what the bytes are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from app.stage import Stage
from app.threads import pool

# Hashed by the loop itself: at 0.5 to 2 GB/s well under a millisecond, of which going through a thread would cost a good part.
AT_ONCE_BYTES = 262_144


class Fingerprints:
    """Hashes large bytes in a thread of its own, in the order they came."""

    def __init__(self) -> None:
        self._pool = pool(1, "hash")  # no thread starts before there is something large
        self._stage: Stage[bytes, bytes] = Stage(_hashes, self._pool)

    async def of(self, data: bytes, *, deadline: float, limit_s: float) -> bytes:
        """The 32 bytes of the digest. `deadline` in loop time.

        Raises:
            AppError: as `Stage.submit`.
        """
        if len(data) <= AT_ONCE_BYTES:
            return hashlib.sha256(data).digest()
        return (await self._stage.submit(data, deadline=deadline, limit_s=limit_s)).row

    async def close(self) -> None:
        """Refuse what is new and large, finish what is being hashed."""
        await self._stage.close()
        self._pool.shutdown()


def _hashes(many: Sequence[bytes]) -> list[bytes]:
    return [hashlib.sha256(data).digest() for data in many]
