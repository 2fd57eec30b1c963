"""The table of errors: complete, safe to show, and right for what the framework answers itself."""

from __future__ import annotations

import importlib
import json
import pkgutil

import grpc
import httpx
import pytest
from starlette.types import Scope

import app
import model
from app import errors
from app.context import SCOPE_KEY, Deadline, RequestContext
from app.problems import FRAMEWORK, INTERNAL, MEDIA_TYPE, TABLE, grpc_code, problem_of, response_of, row_of, rows
from model import errors as model_errors
from tests.app.asgi import client_of, problem, serving


def subclasses(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))


def every_error() -> set[type[Exception]]:
    """Of both trees, wherever in the two packages a class is defined. Tests may define their own; those are left out."""
    for package in (app, model):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if "train" not in module.name and "engines" not in module.name and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found = subclasses(errors.AppError) | subclasses(model_errors.ModelError)
    return {kind for kind in found if kind.__module__.split(".")[0] in {"app", "model"}}


# What no request can cause: it is ours, and a client learns nothing but that.
OURS = {
    errors.AppError, model_errors.ModelError, model_errors.ArchitectureError, model_errors.UnknownVariant,
    model_errors.CheckpointError, model_errors.CheckpointNotFound, model_errors.CheckpointUnsafe, model_errors.CheckpointMismatch,
    model_errors.CheckpointCorrupt, model_errors.DeviceError, model_errors.EngineError,
    model_errors.GraphError, model_errors.OutOfMemory, model_errors.DrawingFailed,
}  # fmt: skip
BUSY: dict[type[Exception], int] = {
    errors.NotReady: 503, errors.DeadlinePassed: 504, model_errors.DecoderUnavailable: 503, model_errors.DrawingUnavailable: 503,
}  # fmt: skip


def test_every_error_has_a_row_and_no_bad_input_is_a_fault_of_ours() -> None:
    kinds = every_error()
    assert len(kinds) >= 25
    for kind in kinds:
        assert any(base in TABLE for base in kind.__mro__), kind
        if kind in OURS:
            assert row_of(kind) is INTERNAL, kind
        elif kind in BUSY:
            assert row_of(kind).status == BUSY[kind]
        else:
            assert 400 <= row_of(kind).status < 500, kind


def test_statuses_are_those_of_the_contract() -> None:
    assert {row.slug: row.status for row in rows()} == {
        "malformed-request": 400, "source-forbidden": 403, "model-not-found": 404, "not-found": 404, "method-not-allowed": 405,
        "body-timeout": 408, "body-too-large": 413, "unsupported-media-type": 415, "image-too-large": 422,
        "image-undecodable": 422, "image-unsupported": 422, "image-unusable": 422, "invalid-parameter": 422, "overloaded": 429,
        "unauthorised": 401, "scope-forbidden": 403, "reference-forbidden": 403, "checkpoint-refused": 422,
        "source-unreachable": 422, "rate-limited": 429, "internal-error": 500, "not-ready": 503, "deadline-passed": 504,
        "image-over-limit": 422, "decoder-unavailable": 503, "drawing-unavailable": 503, "not-acceptable": 406,
    }  # fmt: skip


def test_a_figure_that_fails_is_a_fault_of_ours_and_says_so_itself() -> None:
    assert TABLE[model_errors.DrawingFailed] is INTERNAL


def test_titles_never_change_with_the_request_and_slugs_are_slugs() -> None:
    for row in (*TABLE.values(), *FRAMEWORK.values()):
        assert row.slug.replace("-", "").isalpha()
        assert row.slug == row.slug.lower()
        assert row.title[0].isupper()
        assert not row.title.endswith(".")


@pytest.mark.parametrize(
    "kind", [RuntimeError, KeyError, ValueError, OSError, *sorted(OURS - {model_errors.UnknownVariant}, key=str)]
)
def test_nothing_is_told_of_a_fault_of_ours(kind: type[Exception]) -> None:
    body = problem_of(kind("/a/path and a secret"))
    assert (body.status, body.type) == (500, "/problems/internal-error")
    assert "secret" not in body.model_dump_json()


def test_the_numbers_come_from_the_error() -> None:
    body = problem_of(model_errors.ImageTooLarge(10, 20, 100)).model_dump(exclude_none=True)
    assert (body["limit"], body["value"]) == (100, 200)
    body = problem_of(errors.NotReady(["one", "two"])).model_dump(exclude_none=True)
    assert body["reasons"] == ["one", "two"]
    body = problem_of(errors.InvalidParameter("top_k", "y" * 1000, "a number")).model_dump(exclude_none=True)
    assert (body["parameter"], body["value"]) == ("top_k", "y" * 100)
    assert "limit" not in body


def test_an_answer_is_a_problem_document_and_the_log_learns_its_slug() -> None:
    context = RequestContext("abc", Deadline(0, 1))
    scope: Scope = {"type": "http", SCOPE_KEY: context}
    response = response_of(errors.Overloaded("images at once", 5, 7), scope)
    assert (response.status_code, response.media_type, response.headers["retry-after"]) == (429, MEDIA_TYPE, "7")
    assert json.loads(bytes(response.body)) == {
        "type": "/problems/overloaded", "title": "Too much at once", "status": 429,
        "detail": "the service is at its limit of 5 images at once; try again in 7 s", "limit": 5,
    }  # fmt: skip
    assert context.problem == "overloaded"


async def test_no_such_route(client: httpx.AsyncClient) -> None:
    assert "/nowhere" in problem(await client.get("/nowhere"), 404, "not-found")["detail"]
    assert len(problem(await client.get("/" + "x" * 5000), 404, "not-found")["detail"]) < 300


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/classify", "POST"), ("PUT", "/classify/batch", "POST"), ("POST", "/models", "GET"), ("DELETE", "/livez", "GET")],
)
async def test_no_such_method(client: httpx.AsyncClient, method: str, path: str, allowed: str) -> None:
    response = await client.request(method, path)
    body = problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == allowed
    assert method in body["detail"]
    assert allowed in body["detail"]


async def test_without_any_lifespan_requests_are_told_that_nothing_is_loaded() -> None:
    from app.main import create_app

    async with client_of(create_app()) as client:
        problem(await client.get("/models"), 503, "not-ready")


def test_every_status_has_one_over_grpc() -> None:
    codes = {row.status: grpc_code(row.status) for row in rows()}
    assert set(codes.values()) <= {code.name for code in grpc.StatusCode} - {"OK", "UNKNOWN"}
    assert {status for status, code in codes.items() if code == "INTERNAL"} == {500}
    assert (codes[429], codes[503], codes[504]) == ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")


ERRORS_AT = [("GET", "/v2/x"), ("POST", "/v2"), ("POST", "/hf"), ("POST", "/")]


@pytest.mark.parametrize(
    ("dialects", "plain"),
    [
        ("vertex,sagemaker", []),
        ("v2", ERRORS_AT[:2]),
        ("huggingface", ERRORS_AT[2:3]),
        ("huggingface-root", ERRORS_AT[3:]),
        ("v2,huggingface,sagemaker,vertex", ERRORS_AT[:3]),
    ],
)
@pytest.mark.parametrize("early", [True, False])
async def test_errors_are_plain_where_a_protocol_that_is_on_has_them_so(
    dialects: str, plain: list[tuple[str, str]], early: bool
) -> None:
    keys = "a-key-of-16-characters" if early else None  # with keys it is the gate that answers, before any route
    async with serving(dialects=dialects, api_keys=keys) as service:
        found = []
        for method, path in ERRORS_AT:
            got = await service.client.request(method, path)
            assert got.status_code >= 400
            if list(got.json()) == ["error"]:
                found.append((method, path))
            else:
                assert got.headers["content-type"] == MEDIA_TYPE
        assert found == plain
