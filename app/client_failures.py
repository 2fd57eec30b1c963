"""What an answer that is no success means, and what it means that none came: the client's one table of statuses.

They are those of other people's servers as well: proxies answer in the service's place, with no problem document.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

from app import client_errors as errors
from app.client_retries import seconds_of

# By the last part of the problem's type; what is not here goes by its status.
BY_SLUG: dict[str, type[errors.ProblemError]] = {
    "image-too-large": errors.TooLarge,
    "image-undecodable": errors.BadImage,
    "image-unsupported": errors.BadImage,
    "image-over-limit": errors.BadImage,
    "image-unusable": errors.BadImage,
    "source-unreachable": errors.BadImage,
    "source-forbidden": errors.BadImage,
    "checkpoint-refused": errors.CheckpointRefused,
}
BY_STATUS: dict[int, type[errors.ProblemError]] = {
    401: errors.Unauthorised,
    403: errors.NotAllowed,
    404: errors.NotFound,
    408: errors.DeadlineProblem,  # may be tried again (RFC 9110, section 15.5.9)
    413: errors.TooLarge,
    429: errors.Overloaded,
    502: errors.NotReady,  # a proxy finds nobody: the service is being started again
    503: errors.NotReady,
    504: errors.DeadlineProblem,
}
_NAMED = {"type", "title", "status", "detail", "instance", "parameter", "limit", "value", "allowed", "reasons"}
# What httpx raises of an exchange. Not all of it is an HTTPError: a redirect to no address, for one.
BROKEN_OFF = (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError, TimeoutError)
_LEADS_TO = "x-leads-to"
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, whole."""

    status: int
    headers: Mapping[str, str]  # whose names are found in any case
    body: bytes


def keep_here(response: httpx.Response) -> None:
    """Put the target of a redirect aside, for `failure_of` to tell.

    httpx reads it even where it follows none, and fails on one such as `javascript:`: that would hide what was answered.
    """
    if response.has_redirect_location:
        response.headers[_LEADS_TO] = response.headers.pop("location")


def hold(size: int, most: int, address: str) -> None:
    """Raises UnexpectedAnswer where an answer has more bytes than what is asked there can have: no memory is filled with it."""
    if size > most:
        raise errors.UnexpectedAnswer(f"the answer from {address} is larger than {most // 1_000_000} MB")


def failure_of(answer: Answer) -> errors.ClientError | None:
    """The error that an answer means, None for a success."""
    if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    if answer.status < HTTPStatus.BAD_REQUEST:
        target = (answer.headers.get("location") or answer.headers.get(_LEADS_TO, "")).partition("?")[0][:200]
        return errors.UnexpectedAnswer(
            f"the answer leads elsewhere ({target!r}), which is not followed; give the service's own address"
        )
    document = _document(answer)
    kind = BY_SLUG.get(_text(document, "type").rpartition("/")[2]) or BY_STATUS.get(answer.status) or _by_class(answer.status)
    return _problem(kind, answer, document)


def no_answer(error: Exception, address: str, timeout_s: float) -> errors.ClientError:
    """The error that one of `BROKEN_OFF` means."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return errors.DeadlinePassed(f"no answer from {address} within {timeout_s:g} s")
    if isinstance(error, httpx.DecodingError):
        return errors.UnexpectedAnswer(f"the answer from {address} cannot be read: {_one_line(str(error))}")
    if not isinstance(error, httpx.RequestError):
        return errors.UnexpectedAnswer(f"the exchange with {address} broke off: {_one_line(str(error)) or type(error).__name__}")
    failure = errors.Unreachable(f"no answer from {address}: {_reason(error)}")
    failure.sent = not isinstance(error, _NOT_SENT)
    failure.temporary = not any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))
    return failure


def _problem(kind: type[errors.ProblemError], answer: Answer, document: dict[str, Any]) -> errors.ProblemError:
    phrase = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else f"Status {answer.status}"
    reasons = _texts(document, "reasons")
    detail = _text(document, "detail") or "; ".join(reasons) or f"{answer.status} {phrase}, from no service of this kind"
    text = _one_line(detail)
    if issubclass(kind, errors.ServerFault) and "x-request-id" in answer.headers:
        text += f" (request {answer.headers['x-request-id']})"  # what there is to say of it is in a log
    problem = kind(text, extensions={name: value for name, value in document.items() if name not in _NAMED})
    problem.type = _text(document, "type") or problem.type
    problem.title = _text(document, "title") or phrase
    problem.detail, problem.status = detail, answer.status
    problem.parameter = _text(document, "parameter") or None
    problem.limit, problem.value = document.get("limit"), document.get("value")
    problem.allowed, problem.reasons = _texts(document, "allowed"), reasons
    problem.retry_after_s = seconds_of(answer.headers.get("retry-after"), answer.headers.get("date"))
    return problem


def _by_class(status: int) -> type[errors.ProblemError]:
    return errors.ServerFault if status >= HTTPStatus.INTERNAL_SERVER_ERROR else errors.InvalidRequest


def _document(answer: Answer) -> dict[str, Any]:
    """What JSON object came, if one did: newer services may add members, proxies send HTML."""
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _texts(document: dict[str, Any], name: str) -> tuple[str, ...]:
    value = document.get(name)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _one_line(text: str) -> str:
    line = " ".join(text.split())[:1000]
    # Most of these texts end on a terminal: a service shall not move its cursor.
    return line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: httpx.RequestError) -> str:
    """Why, in the system's own words where it has some: those of the libraries between differ from one to the other."""
    if isinstance(error, httpx.RemoteProtocolError):
        return "the connection was closed before the answer was there"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):  # whose numbers are not the system's
            return f"TLS failed: {cause.reason or cause}"
    codes = [cause for cause in _causes(error) if isinstance(cause, OSError) and cause.errno and cause.strerror]
    if codes:
        last = codes[-1]
        known = last.errno is not None and last.errno > 0
        return (os.strerror(last.errno or 0) if known else last.strerror or "").strip().lower()
    return _one_line(str(error)) or type(error).__name__
