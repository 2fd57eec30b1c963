"""Wire form -> encoded image bytes: multipart, raw, JSON with base64 or data URI. Bodies are bounded by the middleware."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.errors import AppError, InvalidParameter, MalformedRequest, SourceForbidden, UnsupportedMedia
from app.schemas.native import BatchJson, ImageJson

ACCEPTED = ("multipart/form-data", "image/*", "application/octet-stream", "application/json")
ACCEPTED_BATCH = ("multipart/form-data", "application/json")
_DATA_URI = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;[\w-]+=[\w.-]+)*;base64,", re.ASCII | re.IGNORECASE)
_MAX_FIELDS = 100  # parts that are no files: ignored, so a few are enough
_MAX_JSON_VALUES = 20_000  # base64 holds no comma: an honest body has one an image; each value costs memory before it is refused
_SPARE_FILES = 1000  # read beyond the limit, so that the answer can tell how many there were

_FAULTS = {  # pydantic's names of faults, in words that stay when the library's change
    "json_invalid": "is no valid JSON",
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "string_type": "should be text",
    "list_type": "should be a list",
    "model_type": "should be an object",
    "value_error": "should have exactly one of image and url",
}

JsonT = TypeVar("JsonT", bound=BaseModel)


async def one_image(request: Request) -> bytes:
    """The encoded image of a request, in whichever accepted form it came.

    Raises:
        MalformedRequest, UnsupportedMedia, SourceForbidden, BodyTooLarge, BodyTimeout.
    """
    media = _media_type(request)
    if media == "multipart/form-data":
        async with _form(request, 1) as form:
            return await _single_file(form)
    if media == "application/json":
        wire = await _json(request, ImageJson)
        if wire.url is not None:
            raise SourceForbidden("images by url are switched off on this service; send the image itself")
        return await asyncio.to_thread(decode_base64, wire.image or "")
    if media.startswith("image/") or media == "application/octet-stream":
        return _not_empty(await request.body(), "body")
    raise _refusal(request, media, ACCEPTED)


async def many_images(request: Request, max_images: int) -> list[tuple[str | None, bytes | AppError]]:
    """(file name, encoded image or why it could not be read) for each image of a batch, in order.

    Raises:
        MalformedRequest, UnsupportedMedia, InvalidParameter (too many images), BodyTooLarge, BodyTimeout.
    """
    media = _media_type(request)
    if media == "multipart/form-data":
        async with _form(request, max_images) as form:
            parts = form.getlist("files")
            _check_count(len(parts), max_images, "multipart parts named files")
            return [(_filename(part), await _read_or_error(part)) for part in parts]
    if media == "application/json":
        wire = await _json(request, BatchJson)
        _check_count(len(wire.images), max_images, "entries in images")
        return [(None, await asyncio.to_thread(_decode_or_error, text)) for text in wire.images]
    raise _refusal(request, media, ACCEPTED_BATCH)


def decode_base64(text: str) -> bytes:
    """Base64 (RFC 4648 section 4, white space allowed) or a base64 `data:` URI (RFC 2397) -> bytes.

    Raises:
        MalformedRequest: neither.
    """
    if text[:5].lower() == "data:":
        match = _DATA_URI.match(text[:300])
        if match is None:
            raise MalformedRequest("the data URI should look like data:image/jpeg;base64,...")
        text = text[match.end() :]
    try:
        # In one pass: splitting at white space would make an object of every piece a stranger chose to separate.
        data = base64.b64decode(text.encode("ascii").translate(None, b" \t\r\n\f\v"), validate=True)
    except (binascii.Error, ValueError):
        raise MalformedRequest("the image is no valid base64 (RFC 4648, with padding)") from None
    return _not_empty(data)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _refusal(request: Request, media: str, accepted: tuple[str, ...]) -> AppError:
    """What is wrong with a request whose media type is not accepted: an empty one is told that it is empty."""
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return MalformedRequest(f"the body is empty; send an image as {', '.join(accepted)}")
    return UnsupportedMedia(media, accepted)


class _Parser(MultiPartParser):
    """Remembers whether the closing boundary came: without it parts may be missing, which the framework does not tell."""

    complete = False

    def on_end(self) -> None:
        self.complete = True


@asynccontextmanager
async def _form(request: Request, max_files: int) -> AsyncIterator[FormData]:
    # Only the boundary is passed on: RFC 7578 knows no charset here, and Python's codecs hold some that fail on decoding.
    boundary = parse_options_header(request.headers["content-type"])[1].get(b"boundary", b"").decode("latin-1")
    quoted = boundary.replace("\\", "\\\\").replace('"', '\\"')
    headers = Headers({"content-type": f'multipart/form-data; boundary="{quoted}"'})

    async def whole_body() -> AsyncGenerator[bytes, None]:
        async with aclosing(request.stream()) as stream:
            async for chunk in stream:
                yield chunk
        if not parser.complete:  # raised in here, the parser closes the files of unfinished parts
            raise MalformedRequest("the multipart body has no closing boundary: it is not complete")

    async with aclosing(whole_body()) as body:
        parser = _Parser(headers, body, max_files=max_files + _SPARE_FILES, max_fields=_MAX_FIELDS)
        try:
            form = await parser.parse()
        except MultiPartException:
            # The framework's text is about its parser; ours is about the request.
            raise MalformedRequest(
                "the multipart body cannot be read: boundary, part headers or the number of parts are not in order"
            ) from None
    try:
        yield form
    finally:
        await form.close()


async def _single_file(form: FormData) -> bytes:
    parts = form.getlist("file")
    if not parts:
        names = ", ".join(sorted({name[:50] for name in form})[:10]) or "none"
        raise MalformedRequest(f"there is no part named file; parts found: {names}")
    if len(parts) > 1:
        raise MalformedRequest(f"there are {len(parts)} parts named file; send one, or several named files to /classify/batch")
    return await _read(parts[0])


async def _read(part: UploadFile | str) -> bytes:
    if isinstance(part, str):
        raise MalformedRequest("the part has no filename, so it is text; send it as a file, as curl -F file=@photo.jpg does")
    return _not_empty(await part.read())


async def _read_or_error(part: UploadFile | str) -> bytes | AppError:
    try:
        return await _read(part)
    except MalformedRequest as error:
        return error


def _decode_or_error(text: str) -> bytes | AppError:
    try:
        return decode_base64(text)
    except MalformedRequest as error:
        return error


def _filename(part: UploadFile | str) -> str | None:
    return part.filename[:255] if isinstance(part, UploadFile) and part.filename else None


async def _json(request: Request, schema: type[JsonT]) -> JsonT:
    body = _not_empty((await request.body()).removeprefix(b"\xef\xbb\xbf"), "body")
    if body.count(b",") > _MAX_JSON_VALUES:
        raise MalformedRequest(f"the JSON holds more than {_MAX_JSON_VALUES} values; documented are images only")
    try:
        return await asyncio.to_thread(schema.model_validate_json, body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:100] or "the body"
        raise MalformedRequest(f"the JSON is not as documented: {where} {_FAULTS.get(first['type'], 'is not')}") from None


def _check_count(count: int, limit: int, what: str) -> None:
    if count == 0:
        raise MalformedRequest(f"there are no {what}")
    if count > limit:
        raise InvalidParameter("number of images", count, f"a whole number from 1 to {limit}", limit)


def _not_empty(data: bytes, what: str = "image") -> bytes:
    if not data:
        raise MalformedRequest(f"the {what} is empty")
    return data
