"""The one table of errors: type -> status, slug, title; rendered as RFC 9457 `application/problem+json`.

Only the texts of our own errors are shown, since they were written to be; of anything else the client learns a title.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app import errors
from app.context import SCOPE_KEY, context_of
from app.dialects import Plain
from app.schemas.problem import PlainError, Problem
from app.schemas.wire import OUTSIDE
from model import errors as model_errors

logger = logging.getLogger("sknet.service")

MEDIA_TYPE = "application/problem+json"
PREFIX = "/problems/"


@dataclass(frozen=True)
class Row:
    """How one kind of error looks from outside."""

    status: int
    slug: str
    title: str
    retry: bool = False  # the answer says in `Retry-After` when to come back


# pydantic's names of faults in a parameter, in words that stay when the library's change.
_ALLOWED = {
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "greater_than_equal": "{limit} or more",
    "less_than_equal": "{limit} or less",
    "literal_error": "{expected}",
    OUTSIDE: "{expected}",
}
INTERNAL = Row(500, "internal-error", "Something went wrong in the service")

TABLE: dict[type[Exception], Row] = {
    errors.MalformedRequest: Row(400, "malformed-request", "The request cannot be read"),
    errors.Unauthorised: Row(401, "unauthorised", "A key is needed"),
    errors.ScopeForbidden: Row(403, "scope-forbidden", "The key does not allow this"),
    errors.ReferenceForbidden: Row(403, "reference-forbidden", "The checkpoint may not come from there"),
    errors.CheckpointRefused: Row(422, "checkpoint-refused", "The checkpoint cannot serve"),
    errors.SourceUnreachable: Row(422, "source-unreachable", "The image could not be fetched"),
    errors.RateLimited: Row(429, "rate-limited", "Too many requests", retry=True),
    errors.SourceForbidden: Row(403, "source-forbidden", "Images may not come from there"),
    errors.RouteNotFound: Row(404, "not-found", "No such route"),
    errors.ModelNotFound: Row(404, "model-not-found", "No such model"),
    errors.NotAcceptable: Row(406, "not-acceptable", "The answer cannot come in that form"),
    errors.BodyTimeout: Row(408, "body-timeout", "The body did not arrive in time"),
    errors.BodyTooLarge: Row(413, "body-too-large", "The body is too large"),
    errors.UnsupportedMedia: Row(415, "unsupported-media-type", "The media type is not accepted"),
    errors.InvalidParameter: Row(422, "invalid-parameter", "A parameter is out of range"),
    errors.InstanceUnusable: Row(422, "image-unusable", "The image cannot be used"),
    errors.Overloaded: Row(429, "overloaded", "Too much at once", retry=True),
    errors.NotReady: Row(503, "not-ready", "The service is not ready", retry=True),
    errors.DeadlinePassed: Row(504, "deadline-passed", "The deadline passed"),
    errors.AppError: INTERNAL,
    model_errors.ImageUndecodable: Row(422, "image-undecodable", "The bytes are no readable image"),
    model_errors.ImageUnsupported: Row(422, "image-unsupported", "The image format is not supported"),
    model_errors.ImageTooLarge: Row(422, "image-too-large", "The image has too many pixels"),
    model_errors.ImageOverLimit: Row(422, "image-over-limit", "The image is beyond a limit"),
    model_errors.DecoderUnavailable: Row(503, "decoder-unavailable", "The image cannot be decoded at present", retry=True),
    model_errors.FiguresUnavailable: Row(406, "not-acceptable", "The answer cannot come in that form"),
    model_errors.DrawingFailed: INTERNAL,  # the image is in order, and was decoded: it is our drawing that is not
    model_errors.DrawingUnavailable: Row(503, "drawing-unavailable", "The figure cannot be drawn at present", retry=True),
    model_errors.ImageError: Row(422, "image-unusable", "The image cannot be used"),
    model_errors.ModelError: INTERNAL,
}

# What the framework itself answers, by status.
FRAMEWORK: dict[int, Row] = {
    400: TABLE[errors.MalformedRequest],
    404: TABLE[errors.RouteNotFound],
    405: Row(405, "method-not-allowed", "The method is not allowed here"),
}

DONE = 200
# What stands for a status over gRPC (google.rpc.Code, whose comments say which of HTTP's each is).
_GRPC = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    406: "INVALID_ARGUMENT",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def grpc_code(status: int) -> str:
    """The name of gRPC's status for one of HTTP's."""
    return _GRPC[status]


def rows() -> tuple[Row, ...]:
    """Every row once, by status and slug."""
    every = {row.slug: row for row in (*TABLE.values(), *FRAMEWORK.values())}
    return tuple(sorted(every.values(), key=lambda row: (row.status, row.slug)))


def row_of(kind: type[BaseException]) -> Row:
    """The row of an error type, or of its nearest ancestor that has one."""
    return next((TABLE[base] for base in kind.__mro__ if base in TABLE), INTERNAL)


def is_fault(status: int | None) -> bool:
    """Whether an answer says that the service is at fault; what a client did wrong is no fault, nor that it left."""
    return status is not None and status >= 500


def problem_of(error: BaseException) -> Problem:
    """An error as its problem document. The numbers that matter come from the error's own attributes."""
    row = row_of(type(error))
    if row is INTERNAL:
        return _problem(row, "The fault is ours and is in the log under this request's id.")
    numbers = {name: getattr(error, name) for name in ("limit", "value", "allowed", "reasons") if hasattr(error, name)}
    if isinstance(error, errors.InvalidParameter | errors.InstanceUnusable):
        numbers["parameter"] = error.name
    return _problem(row, str(error), **{k: v for k, v in numbers.items() if v is not None})


def response_of(error: BaseException, scope: Scope, plain: Plain | None = None) -> Response:
    """The whole HTTP answer to an error. `plain` tells where it is `{"error": text}`; not given, as the application has it."""
    retry_after = getattr(error, "retry_after", None)
    return _response(problem_of(error), scope, retry_after=retry_after, headers=_challenge(error), plain=plain)


def log_fault(error: BaseException, scope: Scope) -> None:
    """Put into the log what the client is not told, under the id that the client was."""
    if row_of(type(error)) is INTERNAL:
        logger.error("request failed", exc_info=error, extra=context_of(scope).marks)


async def answer(error: BaseException, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer an error from outside of any route."""
    await response_of(error, scope)(scope, receive, send)


def install(app: FastAPI, plain: Plain) -> None:
    """Answer every error of the application, and the framework's own, out of the table; plainly where `plain` says so."""
    app.state.plain = plain

    async def ours(request: Request, error: Exception) -> Response:
        log_fault(error, request.scope)
        return response_of(error, request.scope)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        row = FRAMEWORK.get(error.status_code)
        if row is None:  # RFC 9457, section 4.2.1: no more to say than the status itself
            title = HTTPStatus(error.status_code).phrase
            return _response(Problem(type="about:blank", title=title, status=error.status_code, detail=title), request.scope)
        details = {
            400: "The body could not be read; see the documentation of this route.",
            404: str(errors.RouteNotFound(request.url.path)),
            405: f"{request.method} is not allowed here; allowed: {(error.headers or {}).get('Allow', 'see the documentation')}.",
        }
        return _response(_problem(row, details.get(row.status, row.title)), request.scope, headers=dict(error.headers or {}))

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = str(first["loc"][1])  # (where, name, and below that what pydantic tried)
        value = first.get("input")
        limit = next((v for k, v in first.get("ctx", {}).items() if k in ("ge", "le", "limit")), None)
        expected = first.get("ctx", {}).get("expected")  # of a choice: pydantic's list of them, 'a' or 'b'
        words = _ALLOWED.get(first["type"], "as documented").format(limit=limit, expected=expected)
        return response_of(errors.InvalidParameter(name, value, words, limit), request.scope)

    app.add_exception_handler(errors.AppError, ours)
    app.add_exception_handler(model_errors.ModelError, ours)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, validation)


def _challenge(error: BaseException) -> dict[str, str]:
    """What a client without the right key is told in `WWW-Authenticate` (RFC 6750, section 3)."""
    if isinstance(error, errors.Unauthorised):
        return {"WWW-Authenticate": 'Bearer realm="sknet"' + (', error="invalid_token"' if error.given else "")}
    if isinstance(error, errors.ScopeForbidden):
        return {"WWW-Authenticate": f'Bearer realm="sknet", error="insufficient_scope", scope="{error.allowed[0]}"'}
    return {}


def _problem(row: Row, detail: str, **numbers: Any) -> Problem:
    return Problem(type=f"{PREFIX}{row.slug}", title=row.title, status=row.status, detail=detail, **numbers)


def _plain_of(scope: Scope) -> Plain | None:
    """What `install` was told: the application is in the scope before any of its layers runs."""
    return getattr(scope["app"].state, "plain", None) if "app" in scope else None


def _response(
    problem: Problem,
    scope: Scope,
    *,
    retry_after: int | None = None,
    headers: dict[str, str] | None = None,
    plain: Plain | None = None,
) -> Response:
    headers = dict(headers or {})
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    if SCOPE_KEY in scope:
        context_of(scope).problem = problem.type.removeprefix(PREFIX)
    plain = plain or _plain_of(scope)
    if plain is not None and plain(scope.get("method", ""), scope.get("path", "").removeprefix(scope.get("root_path", ""))):
        return Response(PlainError(error=problem.detail).model_dump_json(), problem.status, headers, "application/json")
    return Response(problem.model_dump_json(exclude_none=True), problem.status, headers, MEDIA_TYPE)
