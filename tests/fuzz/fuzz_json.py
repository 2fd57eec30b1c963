"""Any bytes as the JSON body of a request, through the whole way to the image's bytes, against the standard library's reader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

from fastapi import Request
from starlette.types import Message

from app.errors import AppError
from app.sources import many_images, one_image
from tests.fuzz.fuzz_base64 import ours

SCOPE = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [(b"content-type", b"application/json")]}


def seeds() -> Iterator[bytes]:
    """Bodies as documented, and what is nearly right."""
    yield from (
        b'{"image": "QUJD"}',
        b'{"image": "data:image/png;base64,QUJD"}',
        b'{"image": "\\u0051UJD", "url": null}',
        b'{"url": "https://example.org/a.jpg"}',
        b'{"image": "QUJD", "image": "QUI="}',
        b'\xef\xbb\xbf{"images": ["QUJD", "QQ==", "?"]}',
        b'{"images": []}',
        b'{"images": [1, null, {}], "more": 1e999}',
        b"[" * 50,
        b'{"image": "\\ud800"}',
    )


def check(data: bytes) -> None:
    """Only our own errors come out; bytes come out only of JSON that says so by another reader as well."""
    one, many = _runner().run(_both(data))
    if one is None and many is None:
        return
    value = json.loads(data.removeprefix(b"\xef\xbb\xbf"))
    if one is not None:
        assert one == ours(value["image"])
    if many is not None:
        texts = value["images"]
        assert [image if isinstance(image, bytes) else None for _, image in many] == [ours(text) for text in texts]


@cache
def _runner() -> asyncio.Runner:
    return asyncio.Runner()


async def _both(data: bytes) -> tuple[bytes | None, list[tuple[str | None, bytes | AppError]] | None]:
    async def receive() -> Message:
        return {"type": "http.request", "body": data, "more_body": False}

    one = many = None
    with suppress(AppError):
        one = await one_image(Request(SCOPE, receive))
    with suppress(AppError):
        many = await many_images(Request(SCOPE, receive), 32, 1 << 20)
    return one, many
