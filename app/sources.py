"""Wire form -> encoded image bytes: multipart, raw, JSON with base64, data URI or URL. Bodies are bounded by the middleware."""

from __future__ import annotations

import asyncio
import binascii
import math
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.context import RequestContext, context_of
from app.errors import AppError, BodyTooLarge, InvalidParameter, MalformedRequest, SourceForbidden, UnsupportedMedia
from app.forms import Part, read_form
from app.json_texts import check_texts
from app.schemas.native import BatchJson, ImageJson
from app.schemas.wire import OUTSIDE

ACCEPTED = ("multipart/form-data", "image/*", "application/octet-stream", "application/json")
ACCEPTED_BATCH = ("multipart/form-data", "application/json")
_UNTYPED = ("", "application/x-image")
_DATA_URI = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;[\w-]+=[\w.-]+)*;base64,", re.ASCII | re.IGNORECASE)
_MAX_JSON_VALUES = 20_000  # base64 holds no comma: an honest body has one an image; each value costs memory before it is refused
_BASE64_STEP = 1 << 19  # characters decoded at a time, about a millisecond

_FAULTS = {  # pydantic's names of faults, in words that stay when the library's change
    "json_invalid": "is no valid JSON",
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "string_type": "should be text",
    "string_too_short": "is empty",
    "string_too_long": "is too long",
    "list_type": "should be a list",
    "model_type": "should be an object",
    "dict_type": "should be an object",
    "int_parsing": "should be a whole number",
    "int_parsing_size": "should be a whole number",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "finite_number": "should be a number",
    "value_error": "should have exactly one of image and url",
}

_RANGES = {  # what is there, and of the right kind, but no value that it may have
    "greater_than_equal": "{ge:g} or more",
    "less_than_equal": "{le:g} or less",
    "literal_error": "{expected}",
    OUTSIDE: "{expected}",
}

JsonT = TypeVar("JsonT", bound=BaseModel)
Fetch = Callable[[str, RequestContext], Awaitable[bytes]]  # what is at a url, within the limits of the request


async def one_image(request: Request, fetch: Fetch | None = None, *, untyped: bool = False) -> bytes:
    """The encoded image of a request, in whichever accepted form it came; by url where there is something to fetch it.

    With `untyped`, a raw body needs no Content-Type, and may have the one that is SageMaker's own.

    Raises:
        MalformedRequest, UnsupportedMedia, SourceForbidden, BodyTooLarge, BodyTimeout; with `fetch` what that raises.
    """
    media = _media_type(request)
    if media == "multipart/form-data":
        return _single_file(await _form(request, "file", 1))
    if media == "application/json":
        wire = await _json(request, ImageJson)
        if wire.url is not None:
            return await at_url(request, wire.url, fetch)
        return await asyncio.to_thread(decode_base64, wire.image or "")
    if media.startswith("image/") or media == "application/octet-stream" or (untyped and media in _UNTYPED):
        return _not_empty(await request.body(), "body")
    raise _refusal(request, media, ACCEPTED)


async def at_url(request: Request, url: str, fetch: Fetch | None) -> bytes:
    """What is at an address.

    Raises:
        SourceForbidden: there is nothing to fetch it; with `fetch` what that raises.
    """
    if fetch is None:
        raise SourceForbidden("images by url are switched off on this service; send the image itself")
    return await fetch(url, context_of(request.scope))


async def raw_or_json(request: Request, schema: type[JsonT]) -> bytes | JsonT:
    """A body that is JSON by its media type, or else nothing but an image, whatever its media type says, if there is one.

    Raises:
        MalformedRequest, InvalidParameter, UnsupportedMedia (a form), BodyTooLarge, BodyTimeout.
    """
    media = _media_type(request)
    if media == "application/json":
        return await _json(request, schema)
    if media == "multipart/form-data":
        raise UnsupportedMedia(media, ("image/*", "application/octet-stream", "application/json"))
    return _not_empty(await request.body(), "body")


async def only_json(request: Request, schema: type[JsonT], images: int = 1) -> JsonT:
    """A body that is JSON, with so many images at most.

    Raises:
        MalformedRequest, InvalidParameter, UnsupportedMedia, BodyTooLarge, BodyTimeout.
    """
    media = _media_type(request)
    if media != "application/json":
        raise _refusal(request, media, ("application/json",))
    return await _json(request, schema, images)


async def many_images(request: Request, max_images: int, max_bytes: int) -> list[tuple[str | None, bytes | AppError]]:
    """(file name, encoded image or why it could not be read) for each image of a batch, in order.

    Of base64, no more than `max_bytes` are decoded; what is longer becomes BodyTooLarge.

    Raises:
        MalformedRequest, UnsupportedMedia, InvalidParameter (too many images), BodyTooLarge, BodyTimeout.
    """
    media = _media_type(request)
    if media == "multipart/form-data":
        parts = [part for part in await _form(request, "files", max_images) if part.name == "files"]
        _check_count(len(parts), max_images, "multipart parts named files")
        return [((part.filename or "")[:255] or None, _file_or_error(part)) for part in parts]
    if media == "application/json":
        wire = await _json(request, BatchJson, max_images)
        _check_count(len(wire.images), max_images, "entries in images")
        return [(None, await asyncio.to_thread(_decode_or_error, text, max_bytes)) for text in wire.images]
    raise _refusal(request, media, ACCEPTED_BATCH)


def decode_base64(text: str, max_bytes: float = math.inf) -> bytes:
    """Base64 (RFC 4648 section 4, white space allowed) or a base64 `data:` URI (RFC 2397) -> bytes.

    Raises:
        MalformedRequest: neither.
        BodyTooLarge: it holds more than `max_bytes`.
    """
    start = 0
    if text[:5].lower() == "data:":
        match = _DATA_URI.match(text[:300])
        if match is None:
            raise MalformedRequest("the data URI should look like data:image/jpeg;base64,...")
        start = match.end()
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in _base64_pieces(text, start):
            pieces.append(binascii.a2b_base64(piece, strict_mode=True))
            size += len(pieces[-1])
            if size > max_bytes:
                raise BodyTooLarge(int(max_bytes), size)
    except ValueError:  # binascii.Error and UnicodeEncodeError are kinds of it
        raise MalformedRequest("the image is no valid base64 (RFC 4648, with padding)") from None
    return _not_empty(b"".join(pieces))


def _base64_pieces(text: str, start: int) -> Iterator[bytes]:
    """Groups of four characters, without white space, some at a time: each step holds the interpreter for a moment only."""
    rest = b""
    padded = False
    for at in range(start, len(text), _BASE64_STEP):
        # Removed in one pass: splitting at white space would make an object of every piece a stranger chose to separate.
        piece = rest + text[at : at + _BASE64_STEP].encode("ascii").translate(None, b" \t\r\n\f\v")
        whole = len(piece) // 4 * 4
        piece, rest = piece[:whole], piece[whole:]
        if padded and (piece or rest):
            raise ValueError("something follows the padding")
        if piece.endswith(b"==="):  # Python's strict decoder takes AAAA==== where it meets it in one piece
            raise ValueError("more padding than there can be")
        padded = padded or piece.endswith(b"=")  # a piece of nothing but white space changes nothing
        yield piece
    if rest:
        yield rest  # not whole: for the decoder to refuse


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _refusal(request: Request, media: str, accepted: tuple[str, ...]) -> AppError:
    """What is wrong with a request whose media type is not accepted: an empty one is told that it is empty."""
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return MalformedRequest(f"the body is empty; send an image as {', '.join(accepted)}")
    return UnsupportedMedia(media, accepted)


def _single_file(parts: list[Part]) -> bytes:
    found = [part for part in parts if part.name == "file"]
    if not found:
        names = ", ".join(sorted({part.name[:50] for part in parts})[:10]) or "none"
        raise MalformedRequest(f"there is no part named file; parts found: {names}")
    if len(found) > 1:
        raise MalformedRequest(f"there are {len(found)} parts named file; send one, or several named files to /classify/batch")
    data = _file_or_error(found[0])
    if isinstance(data, AppError):
        raise data
    return data


def _file_or_error(part: Part) -> bytes | AppError:
    if part.filename is None:
        return MalformedRequest("the part has no filename, so it is text; send it as a file, as curl -F file=@photo.jpg does")
    return part.data or MalformedRequest("the image is empty")


def _decode_or_error(text: str, max_bytes: int) -> bytes | AppError:
    try:
        return decode_base64(text, max_bytes)
    except AppError as error:
        return error


async def _form(request: Request, wanted: str, most: int) -> list[Part]:
    return await read_form(request.headers["content-type"], request.stream(), wanted=wanted, most=most)


async def _json(request: Request, schema: type[JsonT], images: int = 1) -> JsonT:
    body = _not_empty((await request.body()).removeprefix(b"\xef\xbb\xbf"), "body")
    try:
        return await asyncio.to_thread(_parse, body, schema, images)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))[:100] or "the body"
        if first["type"] in _RANGES:
            raise InvalidParameter(where, first["input"], _RANGES[first["type"]].format(**first["ctx"])) from None
        raise MalformedRequest(f"the JSON is not as documented: {where} {_FAULTS.get(first['type'], 'is not')}") from None


async def optional_json(request: Request, schema: type[JsonT]) -> JsonT:
    """A JSON body that may be left out: the schema's defaults then.

    Raises:
        MalformedRequest, UnsupportedMedia, BodyTooLarge, BodyTimeout.
    """
    if not (await request.body()).strip():
        return schema()
    media = _media_type(request)
    if media != "application/json":  # nothing else: pages of other origins may send some media types without asking
        raise UnsupportedMedia(media, ("application/json",))
    return await _json(request, schema)


def _parse(body: bytes, schema: type[JsonT], images: int) -> JsonT:
    check_texts(body, images)
    if body.count(b",") > _MAX_JSON_VALUES:
        raise MalformedRequest(f"the JSON holds more than {_MAX_JSON_VALUES} values; documented are images only")
    return schema.model_validate_json(body)


def _check_count(count: int, limit: int, what: str) -> None:
    if count == 0:
        raise MalformedRequest(f"there are no {what}")
    if count > limit:
        raise InvalidParameter("number of images", count, f"a whole number from 1 to {limit}", limit)


def _not_empty(data: bytes, what: str = "image") -> bytes:
    if not data:
        raise MalformedRequest(f"the {what} is empty")
    return data
