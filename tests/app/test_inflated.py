"""Compressed bodies: unpacked whole, never beyond what is allowed, and damage is told from it."""

from __future__ import annotations

import asyncio
import gzip
import math
import os
import zlib
from collections.abc import Callable

import pytest

from app import inflated as module
from app.context import Deadline
from app.errors import BodyTooLarge, DeadlinePassed, MalformedRequest, Overloaded
from app.inflated import inflated

NO_HURRY = Deadline(math.inf, 10)
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


def ignored(count: int) -> None:
    """Of the bytes that came out."""


@pytest.mark.parametrize("coding", module.CODINGS)
@pytest.mark.parametrize("body", [b"", b"a", bytes(3_000_000), os.urandom(1_500_000), b"\0" * (1 << 20)], ids=len)
async def test_what_was_packed_comes_out(coding: str, body: bytes) -> None:
    counts: list[int] = []
    assert await inflated(PACK[coding](body), coding, len(body), counts.append, NO_HURRY) == body
    assert sum(counts) == len(body)
    assert max(counts) <= 1 << 20


async def test_no_more_comes_out_than_is_allowed() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    counts: list[int] = []
    with pytest.raises(BodyTooLarge) as caught:
        await inflated(bomb, "gzip", 2_000_000, counts.append, NO_HURRY)
    assert caught.value.limit == 2_000_000
    assert sum(counts) <= 2_000_000


@pytest.mark.parametrize("coding", module.CODINGS)
@pytest.mark.parametrize("small", [True, False])
async def test_damage_is_refused(coding: str, small: bool) -> None:
    body = b"x" if small else os.urandom(700_000)
    whole = PACK[coding](body)
    damaged = bytearray(whole)
    damaged[-2] ^= 1  # of the checksum, or the length
    for wrong in (
        whole[:-1],
        whole[:1],
        b"",
        whole + b"x",
        whole + whole[:-1],
        whole + bytes(9),
        bytes(damaged),
        b"no such thing",
    ):
        with pytest.raises(MalformedRequest):
            await inflated(wrong, coding, 1 << 30, ignored, NO_HURRY)


@pytest.mark.parametrize("body", [b"", b"a", os.urandom(700_000), bytes(1 << 20)], ids=len)
async def test_gzip_may_have_several_members(body: bytes) -> None:
    members = [gzip.compress(part) for part in (body, b"", body, b"end")]
    counts: list[int] = []
    assert await inflated(b"".join(members), "gzip", 1 << 30, counts.append, NO_HURRY) == body + body + b"end"
    assert sum(counts) == 2 * len(body) + 3
    with pytest.raises(BodyTooLarge):
        await inflated(b"".join(members), "gzip", 2 * len(body) + 2, ignored, NO_HURRY)
    with pytest.raises(MalformedRequest, match="something follows the deflate body"):
        await inflated(zlib.compress(body) * 2, "deflate", 1 << 30, ignored, NO_HURRY)


async def test_gzip_has_so_many_members_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_MEMBERS", 3)
    assert await inflated(gzip.compress(b"a") * 3, "gzip", 9, ignored, NO_HURRY) == b"aaa"
    with pytest.raises(MalformedRequest, match="more than 3 members"):
        await inflated(gzip.compress(b"a") * 4, "gzip", 9, ignored, NO_HURRY)


async def test_one_coding_is_not_the_other() -> None:
    with pytest.raises(MalformedRequest):
        await inflated(gzip.compress(b"x"), "deflate", 9, ignored, NO_HURRY)
    with pytest.raises(MalformedRequest):
        await inflated(zlib.compress(b"x"), "gzip", 9, ignored, NO_HURRY)


async def test_it_ends_with_the_deadline_and_with_the_room() -> None:
    packed = gzip.compress(bytes(3_000_000))
    with pytest.raises(DeadlinePassed):
        await inflated(packed, "gzip", 1 << 30, ignored, Deadline(asyncio.get_running_loop().time() - 1, 10))

    def full(count: int) -> None:
        raise Overloaded("bytes", 1, 1)

    with pytest.raises(Overloaded):
        await inflated(packed, "gzip", 1 << 30, full, NO_HURRY)
