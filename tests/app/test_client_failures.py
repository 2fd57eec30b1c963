"""What answers that are no success mean, those of this service and of whatever stands before it, and what none means."""

from __future__ import annotations

import json
import pickle
import socket
import ssl
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import client_errors as errors
from app.client_failures import Answer, failure_of, no_answer
from app.problems import MEDIA_TYPE, PREFIX, Row, rows

# What a caller does about each problem of the service; a new row of its table has to be put somewhere here.
MEANING: dict[type[errors.ProblemError], set[str]] = {
    errors.Unauthorised: {"unauthorised"},
    errors.NotAllowed: {"scope-forbidden", "reference-forbidden"},
    errors.NotFound: {"not-found", "model-not-found"},
    errors.InvalidRequest: {
        "malformed-request", "method-not-allowed", "not-acceptable", "unsupported-media-type", "invalid-parameter",
    },
    errors.BadImage: {
        "image-undecodable", "image-unsupported", "image-over-limit", "image-unusable", "source-unreachable", "source-forbidden",
    },
    errors.TooLarge: {"body-too-large", "image-too-large"},
    errors.CheckpointRefused: {"checkpoint-refused"},
    errors.Overloaded: {"overloaded", "rate-limited"},
    errors.NotReady: {"not-ready", "decoder-unavailable", "drawing-unavailable"},
    errors.DeadlineProblem: {"deadline-passed", "body-timeout"},
    errors.ServerFault: {"internal-error"},
}  # fmt: skip
HTML = b"<html><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>"


def answered(status: int, body: object = b"", **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, httpx.Headers({"Content-Type": MEDIA_TYPE, **names}), content)


def problem(answer: Answer) -> errors.ProblemError:
    found = failure_of(answer)
    assert isinstance(found, errors.ProblemError)
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.slug)
def test_every_problem_of_the_service_means_what_a_caller_does_about_it(row: Row) -> None:
    document = {"type": PREFIX + row.slug, "title": row.title, "status": row.status, "detail": "so it is"}
    found = problem(answered(row.status, document))
    assert row.slug in MEANING[type(found)]
    assert (found.type, found.title, found.status, found.detail) == tuple(document.values())
    assert "so it is" in str(found)
    assert found.temporary == (row.retry or row.status in (408, 504))


def test_the_numbers_that_matter_come_along() -> None:
    document = {
        "type": "/problems/image-too-large", "title": "T", "status": 422, "detail": "D", "limit": 5, "value": 6,
        "allowed": ["JPEG"], "reasons": ["a", "b"], "parameter": "top_k", "colour": "blue",
    }  # fmt: skip
    found = problem(answered(422, document, Retry_After="7"))
    assert (found.limit, found.value, found.allowed, found.reasons, found.parameter) == (5, 6, ("JPEG",), ("a", "b"), "top_k")
    assert found.extensions == {"colour": "blue"}
    assert found.retry_after_s == 7
    assert isinstance(found, errors.BadImage)


@pytest.mark.parametrize(
    ("status", "kind", "temporary"),
    [
        (400, errors.InvalidRequest, False),
        (401, errors.Unauthorised, False),
        (403, errors.NotAllowed, False),
        (404, errors.NotFound, False),
        (413, errors.TooLarge, False),
        (418, errors.InvalidRequest, False),
        (422, errors.InvalidRequest, False),
        (429, errors.Overloaded, True),
        (451, errors.InvalidRequest, False),
        (499, errors.InvalidRequest, False),
        (500, errors.ServerFault, False),
        (502, errors.NotReady, True),
        (503, errors.NotReady, True),
        (504, errors.DeadlineProblem, True),
        (520, errors.ServerFault, False),
    ],
)
def test_a_proxys_own_page_means_what_its_status_says(status: int, kind: type[errors.ProblemError], temporary: bool) -> None:
    found = problem(answered(status, HTML, Content_Type="text/html"))
    assert type(found) is kind
    assert (found.type, found.status, found.temporary) == ("about:blank", status, temporary)
    assert str(status) in str(found)
    assert "<" not in str(found)


def test_reasons_alone_are_words_enough() -> None:
    found = problem(answered(503, {"ready": False, "reasons": ["the model is loading", "and so on"]}))
    assert (found.reasons, str(found)) == (("the model is loading", "and so on"), "the model is loading; and so on")


def test_a_fault_of_the_service_names_the_request() -> None:
    document = {"type": "/problems/internal-error", "title": "T", "status": 500, "detail": "ours"}
    assert str(problem(answered(500, document, X_Request_ID="abc"))) == "ours (request abc)"


@pytest.mark.parametrize("status", [200, 204, 299])
def test_a_success_is_no_failure(status: int) -> None:
    assert failure_of(answered(status)) is None


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308])
def test_what_leads_elsewhere_is_told_and_not_followed(status: int) -> None:
    found = failure_of(answered(status, b"", Location="https://other.example/classify?token=secret"))
    assert isinstance(found, errors.UnexpectedAnswer)
    assert "https://other.example/classify" in str(found)
    assert "secret" not in str(found)


@given(
    st.integers(400, 599),
    st.binary(max_size=50)
    | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=5)
    | st.dictionaries(
        st.sampled_from(["type", "title", "status", "detail", "limit", "allowed", "reasons", "parameter", "new"]),
        st.none() | st.integers() | st.text() | st.lists(st.text() | st.integers()) | st.dictionaries(st.text(), st.text()),
    ),
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20),
)
def test_whatever_comes_is_an_error_of_one_line(status: int, body: Any, retry_after: str) -> None:
    found = problem(answered(status, body, Retry_After=retry_after))
    assert found.status == status
    assert str(found).strip()
    assert str(found).isprintable()
    assert found.retry_after_s is None or found.retry_after_s >= 0


def test_a_service_does_not_move_the_cursor_of_a_terminal() -> None:
    detail = "\x1b[2J gone,\n\x9b1A\u202e up, \u732b"
    assert str(problem(answered(503, {"detail": detail}))) == "\\x1b[2J gone, \\x9b1A\\u202e up, \u732b"


def test_deeply_nested_json_is_no_document() -> None:
    assert problem(answered(429, b"[" * 100_000)).type == "about:blank"


@pytest.mark.parametrize("kind", [errors.ClientError, *errors.ClientError.__subclasses__(), *MEANING])
def test_errors_can_be_pickled(kind: type[errors.ClientError]) -> None:
    error = kind("a text")
    error.tries = 3
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (kind, "a text", vars(error))
    assert copy.tries == 3


def test_a_deadline_is_caught_by_one_name_whoever_kept_it() -> None:
    document = {"type": "/problems/deadline-passed", "title": "T", "status": 504, "detail": "late"}
    assert isinstance(failure_of(answered(504, document)), errors.DeadlinePassed)
    assert isinstance(no_answer(httpx.ReadTimeout("x"), "http://h", 5), errors.DeadlinePassed)


def caused(error: httpx.RequestError, *causes: BaseException) -> httpx.RequestError:
    """An error as the libraries below hand it over: each with the one before as its cause."""
    last: BaseException = error
    for cause in causes:
        last.__cause__ = cause
        last = cause
    return error


REFUSED = ConnectionRefusedError(111, "Connection refused")
UNKNOWN = socket.gaierror(-2, "Name or service not known")
UNTRUSTED = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] ...")
UNTRUSTED.verify_message = "self-signed certificate"


@pytest.mark.parametrize(
    ("error", "words", "sent", "temporary"),
    [
        (caused(httpx.ConnectError("All attempts failed"), OSError("All attempts failed"), REFUSED), "refused", False, True),
        (caused(httpx.ConnectError("[Errno -2] ..."), UNKNOWN), "name or service not known", False, True),
        (caused(httpx.ConnectError("[SSL: ..."), UNTRUSTED), "not trusted: self-signed certificate", False, False),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), "closed before the answer", True, True),
        (caused(httpx.ReadError(""), ConnectionResetError(104, "x")), "connection reset by peer", True, True),
        (httpx.ReadError(""), "ReadError", True, True),
        (httpx.ProxyError("403 Forbidden"), "403 Forbidden", True, True),
    ],
)
def test_why_no_answer_came(error: httpx.RequestError, words: str, sent: bool, temporary: bool) -> None:
    found = no_answer(error, "http://service", 10)
    assert isinstance(found, errors.Unreachable)
    assert str(found).startswith("no answer from http://service: ")
    assert words in str(found)
    assert (found.sent, found.temporary) == (sent, temporary)


@pytest.mark.parametrize("error", [httpx.ConnectTimeout("x"), httpx.PoolTimeout("x"), httpx.WriteTimeout("x"), TimeoutError()])
def test_no_answer_in_time(error: httpx.RequestError | TimeoutError) -> None:
    found = no_answer(error, "http://service", 2.5)
    assert type(found) is errors.DeadlinePassed
    assert str(found) == "no answer from http://service within 2.5 s"


def test_an_answer_that_cannot_be_unpacked() -> None:
    assert isinstance(no_answer(httpx.DecodingError("incorrect header check"), "http://h", 1), errors.UnexpectedAnswer)
