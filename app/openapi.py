"""What the OpenAPI document says beyond what the framework finds by itself: bodies in several forms, and every error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from app import errors as app_errors
from app.dialects import Plain
from app.problems import MEDIA_TYPE, PREFIX, Row, row_of, rows
from app.schemas.native import TINY_PNG, BatchJson, ImageJson, LoadJson
from app.schemas.problem import Problem
from model import errors as model_errors

Needed = Callable[[str, str], str | None]

# What is answered before a route is asked.
_EARLY = (app_errors.Unauthorised, app_errors.ScopeForbidden, app_errors.BodyTooLarge, app_errors.RateLimited)
_REFUSALS = tuple(row_of(kind).status for kind in _EARLY)
_REF = "#/components/schemas/{model}"
_BINARY = {"schema": {"type": "string", "format": "binary", "description": "The encoded image, and nothing else."}}
# One `detail` for each kind of problem, as the service words it.
_DETAILS = {
    "malformed-request": "the body is empty",
    "source-forbidden": "images by url are switched off on this service; send the image itself",
    "unauthorised": str(app_errors.Unauthorised(given=False)),
    "scope-forbidden": "this key may predict; loading models needs the scope admin",
    "reference-forbidden": str(app_errors.ReferenceForbidden("/etc/passwd", ["bundled names", "registry names"])),
    "checkpoint-refused": "the file is damaged",
    "source-unreachable": "the image could not be fetched: the server answered 404",
    "rate-limited": str(app_errors.RateLimited(10, 1)),
    "model-not-found": str(app_errors.ModelNotFound("other", ["default"])),
    "not-found": str(app_errors.RouteNotFound("/classfy")),
    "method-not-allowed": "GET is not allowed here; allowed: POST.",
    "not-acceptable": str(
        app_errors.NotAcceptable(
            "figures need matplotlib, which is not installed here; ask for application/json", ["application/json"]
        )
    ),
    "body-timeout": str(app_errors.BodyTimeout(10)),
    "body-too-large": str(app_errors.BodyTooLarge(20_000_000, 25_000_000)),
    "unsupported-media-type": str(app_errors.UnsupportedMedia("text/plain", ["multipart/form-data", "image/*"])),
    "invalid-parameter": str(app_errors.InvalidParameter("top_k", 0, "a whole number from 1 to 10")),
    "image-undecodable": "the JPEG image is damaged or cut short",
    "image-unsupported": str(model_errors.ImageUnsupported("PDF", ("JPEG", "PNG", "WEBP"))),
    "image-too-large": str(model_errors.ImageTooLarge(10_000, 6_000, 50_000_000)),
    "image-over-limit": "the image has at least 1001 frames; at most 1000 are allowed",
    "decoder-unavailable": "the process that decodes such images cannot be started: Cannot allocate memory; try again",
    "drawing-unavailable": "the process that draws figures cannot be started: Cannot allocate memory; try again",
    "image-unusable": "the image cannot be used",
    "overloaded": str(app_errors.Overloaded("images at once", 256, 2)),
    "internal-error": "The fault is ours and is in the log under this request's id.",
    "not-ready": str(app_errors.NotReady(["the model is being loaded"])),
    "deadline-passed": str(app_errors.DeadlinePassed(10)),
}

IMAGE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary", "description": "The encoded image."}},
            }
        },
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "application/json": {
            "schema": {"$ref": _REF.format(model="ImageJson")},
            "example": {"image": TINY_PNG},
        },
    },
}

BATCH_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {
                    "files": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "The images.",
                    }
                },
            }
        },
        "application/json": {
            "schema": {"$ref": _REF.format(model="BatchJson")},
            "example": {"images": [TINY_PNG, f"data:image/png;base64,{TINY_PNG}"]},
        },
    },
}


LOAD_BODY: dict[str, Any] = {
    "required": False,
    "content": {
        "application/json": {"schema": {"$ref": _REF.format(model="LoadJson")}, "example": {"checkpoint": "bundled:cifar10"}}
    },
}

_AFTER_JSON = {"schema": {"type": "string", "format": "binary", "description": "The same JSON, and after it the binary tensors."}}
OIP_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": _REF.format(model="OipRequest")},
            "example": {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [TINY_PNG]}]},
        },
        "application/octet-stream": _AFTER_JSON,
    },
}
OIP_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "The outputs.", "content": {"application/octet-stream": _AFTER_JSON}}
}


def errors(*statuses: int, plain: bool = False) -> dict[int | str, dict[str, Any]]:
    """Declare that a route may answer with these statuses, by problem documents or by `PlainError`; the table gives the words."""
    declared: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        kinds = [row for row in rows() if row.status == status]
        entry: dict[str, Any] = {
            "description": "; ".join(dict.fromkeys(row.title for row in kinds)),
            "content": {
                "application/json" if plain else MEDIA_TYPE: {
                    "schema": {"$ref": _REF.format(model="PlainError" if plain else "Problem")},
                    "examples": {row.slug: {"summary": row.title, "value": _example(row, plain=plain)} for row in kinds},
                }
            },
        }
        if any(row.retry for row in kinds):
            entry["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
        declared[status] = entry
    return declared


def _example(row: Row, *, plain: bool) -> dict[str, Any]:
    if plain:
        return {"error": _DETAILS[row.slug]}
    return {"type": PREFIX + row.slug, "title": row.title, "status": row.status, "detail": _DETAILS[row.slug]}


def _drop_framework_errors(schema: dict[str, Any]) -> None:
    """The framework declares its own 422 wherever there is a parameter; ours are declared by `errors`."""
    for unused in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(unused, None)
    for operations in schema["paths"].values():
        for operation in operations.values():
            declared = operation["responses"].get("422", {}).get("content", {})
            if "HTTPValidationError" in str(declared.get("application/json")):
                del operation["responses"]["422"]


_TIMEOUT = {
    "name": "X-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "Milliseconds this request may take; lowers the service's own deadline, never raises it.",
    "schema": {"type": "integer", "minimum": 1, "examples": [2000]},
}
_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "Name of this request in the answer and in the logs: 1 to 128 visible ASCII characters; without it, "
    "the service makes one.",
    "schema": {"type": "string", "examples": ["3f1c9a52"]},
}
_ANSWER_HEADERS = {
    "X-Request-ID": {"description": "As sent, or made here.", "schema": {"type": "string"}},
    "Server-Timing": {"description": "Milliseconds of queue, prepare, inference and total.", "schema": {"type": "string"}},
}


def _describe_headers(schema: dict[str, Any], timed: Set[str]) -> None:
    """Every route takes and gives the same headers; those of time matter where images are classified."""
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            headers = [_TIMEOUT, _ID] if path in timed else [_ID]
            operation.setdefault("parameters", []).extend(headers)
            for response in operation["responses"].values():
                response["headers"] = {**response.get("headers", {}), **_ANSWER_HEADERS}


_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key as `Authorization: Bearer KEY`, where the service has keys.",
    },
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key in a header of its own."},
}


def _describe_access(schema: dict[str, Any], needed: Needed, plain: Plain) -> None:
    """Whether a service has keys is not known here: a route may want one, or none. In 3.1 the lists name the scope."""
    schema["components"]["securitySchemes"] = _SCHEMES
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            scope = needed(method.upper(), path)
            operation["security"] = [] if scope is None else [{}, {"bearer": [scope]}, {"key": [scope]}]
            if scope is not None:
                entries = errors(*_REFUSALS, plain=plain(method.upper(), path))
                refusals = {str(status): entry for status, entry in entries.items()}
                refusals[str(_REFUSALS[0])]["headers"] = {
                    "WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}
                }
                operation["responses"] = dict(sorted({**refusals, **operation["responses"]}.items()))


def _bound_batches(schema: dict[str, Any], most_images: int) -> None:
    """How many images a batch may have is a setting, so neither form of its body could say it by itself."""
    form = schema["paths"]["/classify/batch"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    for images in (form["properties"]["files"], schema["components"]["schemas"]["BatchJson"]["properties"]["images"]):
        images["maxItems"] = most_images


def install(
    app: FastAPI, needed: Needed, *, most_images: int, timed: Set[str], schemas: Iterable[type[BaseModel]], plain: Plain
) -> None:
    """Add to the document what routes do not say: schemas that only hand-written parts refer to, headers, keys, limits.

    `needed` tells the scope that a method and a path need, None where they are open; `timed` are the paths of routes whose
    clients may lower the deadline, `schemas` what only hand-written parts of further routes refer to, and `plain` tells where
    errors are plain.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            known = schema["components"]["schemas"]
            kinds: tuple[type[BaseModel], ...] = (Problem, ImageJson, BatchJson, LoadJson, *schemas)
            for kind in kinds:
                known[kind.__name__] = kind.model_json_schema(ref_template=_REF)
                known.update(known[kind.__name__].pop("$defs", {}))
            _drop_framework_errors(schema)
            _describe_access(schema, needed, plain)
            _bound_batches(schema, most_images)
            _describe_headers(schema, timed)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # the way the framework documents
