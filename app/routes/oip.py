"""The Open Inference Protocol over REST: `/infer`, with the classification and binary data extensions.

It takes any Content-Type, since the protocol's clients send several, or none.
"""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import APIRouter, Request, Response

from app import oip, threads
from app.classifier import Classified
from app.context import RequestContext, context_of
from app.dialects import Dialect
from app.errors import InvalidParameter, UnsupportedMedia
from app.inflated import CODINGS, NONE, codings_of, inflated
from app.oip_body import Asked, Limits, read, written
from app.openapi import OIP_ANSWER, OIP_BODY, errors
from app.routes import oip_about, oip_repository
from app.routes.direct import Direct
from app.routes.models import Name
from app.routes.oip_about import TAG
from app.schemas.oip import OipAnswer, OipIndexRequest, OipRepositoryRequest, OipRequest
from app.schemas.problem import PlainError
from app.services import Services, services_of
from app.settings import Settings

HEAD_LENGTH = "Inference-Header-Content-Length"
ABOUT = (
    "Version 2 of the protocol of KServe, Triton and others, over REST. What is below a model's name is also below "
    f"`/versions/{oip.VERSION}` after it."
)
SMALL_BYTES = 1 << 16  # of JSON that is read at once: more is read in a thread
router = APIRouter(tags=[TAG], route_class=Direct)
_INFER = {**OIP_ANSWER, **errors(400, 404, 408, 413, 415, 422, 429, 500, 503, 504, plain=True)}


def dialect(settings: Settings) -> Dialect:
    """All of the protocol's routes, which are in three files."""
    every = APIRouter()
    for each in (oip_about.router, router, oip_repository.router):
        every.include_router(each)
    model, repository = f"/v2/models/{settings.model_name}", f"/v2/repository/models/{settings.model_name}"
    infer = (f"{model}/infer", f"{model}/versions/{oip.VERSION}/infer")
    return Dialect(
        every,
        inputs=dict.fromkeys(infer, settings.max_batch_body_bytes),
        unpacked=frozenset(infer),
        templates=frozenset({"/v2/models/{name}/infer"}),
        admin=frozenset({"/v2/repository/index", f"{repository}/load", f"{repository}/unload"}),
        probes=frozenset({"/v2/health/live", "/v2/health/ready"}),
        tags=({"name": TAG, "description": ABOUT},),
        schemas=(OipRequest, OipIndexRequest, OipRepositoryRequest, PlainError),
        plain=lambda _, path: path == "/v2" or path.startswith("/v2/"),
    )


@router.post(
    "/v2/models/{name}/infer",
    response_model=OipAnswer,
    responses=_INFER,
    openapi_extra={"requestBody": OIP_BODY},
    summary="Classify images given as a tensor",
)
async def oip_infer(request: Request, name: Name) -> Response:
    """One input in JSON, or after it in binary form; the scores of every class, or with `classification` the best ones."""
    return await oip_infer_version(request, name, "")


@router.post("/v2/models/{name}/versions/{version}/infer", include_in_schema=False)
async def oip_infer_version(request: Request, name: Name, version: str) -> Response:
    """As without a version, since there is one."""
    services, context = services_of(request), context_of(request.scope)
    oip.check_model(name, version, services.settings.model_name)
    settings = services.settings
    limits = Limits(min(settings.max_images, settings.max_queue), settings.max_body_bytes)
    body, head_length = await _body(request, services, context), _head_length(request)
    info = services.classifier.model.info  # only now: another model may have come while the body did
    reading = partial(read, body, head_length, info, limits)
    small = min(len(body), head_length or len(body)) <= SMALL_BYTES
    asked = reading() if small else await asyncio.to_thread(reading)
    found = await oip.infer(services.classifier, asked.images, asked.requested, context.deadline)
    context.timings.extend(each.timings for each in found)
    content, length = await threads.written(partial(_answer, name, asked, found), oip.values_of(found, asked.requested))
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, headers={HEAD_LENGTH: str(length)}, media_type="application/octet-stream")


def _answer(name: str, asked: Asked, found: list[Classified]) -> tuple[bytes, int | None]:
    return written(name, asked.id, oip.outputs_of(found, asked.requested))


async def _body(request: Request, services: Services, context: RequestContext) -> bytes:
    body, lines = await request.body(), request.headers.getlist("content-encoding")
    given = ", ".join(lines)  # several lines are one list (RFC 9110, section 5.3)
    codings = codings_of(given)
    if not codings:
        return body
    coding = codings[0]
    if len(codings) > 1 or coding not in CODINGS:
        raise UnsupportedMedia(given, (*CODINGS, NONE), "Content-Encoding")
    take, most = partial(services.room.take, context), services.settings.max_batch_body_bytes
    return await inflated(body, coding, most, take, context.deadline)


def _head_length(request: Request) -> int | None:
    text = request.headers.get(HEAD_LENGTH)
    text = text if text is None else text.strip(" \t")  # blanks around it are no part of it (RFC 9110, section 5.5)
    if text is not None and not (text.isascii() and text.isdigit()):
        raise InvalidParameter(HEAD_LENGTH, text, "a whole number of bytes")
    return None if text is None else int(text[:18])
