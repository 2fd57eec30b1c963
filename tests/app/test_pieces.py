"""A large answer is sent piece by piece, and is the same."""

from __future__ import annotations

import httpx
import pytest

from app.pieces import PIECE_BYTES, Pieces


@pytest.mark.parametrize("size", [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
async def test_it_arrives_whole(size: int) -> None:
    body = bytes(i % 251 for i in range(size))
    app = Pieces(body, media_type="image/png")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        answer = await client.get("/")
    assert answer.content == body
    assert answer.headers["content-length"] == str(size)
