"""The model repository extension of the Open Inference Protocol: what there is, loading and unloading, as `/models` does it.

Source: Triton Inference Server, docs/protocol/extension_model_repository.md.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from app import oip
from app.errors import MalformedRequest
from app.json_texts import check_texts
from app.oip_body import BOM, JsonT, parsed
from app.openapi import errors
from app.references import MAX_LENGTH, allowed
from app.routes.models import Name, known
from app.routes.oip_about import TAG
from app.schemas.oip import OipIndexEntry, OipIndexRequest, OipRepositoryRequest
from app.services import Has, Services

_STATES = {"ready": "READY", "loading": "LOADING"}  # of ours; any other is UNAVAILABLE
router = APIRouter(tags=[TAG])


def _body(schema: str, example: dict[str, Any]) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    return {"requestBody": {"required": False, "content": {"application/json": content}}}


@router.post(
    "/v2/repository/index",
    response_description="Every model.",
    responses=errors(400, 408, 413, 415, 500, plain=True),
    openapi_extra=_body("OipIndexRequest", {"ready": True}),
    summary="Every model and its state",
)
async def oip_index(request: Request, services: Has) -> list[OipIndexEntry]:
    """What could serve, whether or not it does; with `ready` only what does."""
    asked = await _read(request, OipIndexRequest)
    entry = _entry(services)
    return [entry] if entry.state == "READY" or not asked.ready else []


@router.post(
    "/v2/repository/models/{name}/load",
    response_description="The model that serves now.",
    responses=errors(400, 404, 408, 413, 415, 422, 429, 500, 503, plain=True),
    openapi_extra=_body("OipRepositoryRequest", {"parameters": {"checkpoint": "bundled:cifar10"}}),
    summary="Load a checkpoint",
)
async def oip_load(request: Request, services: Has, name: Name) -> OipIndexEntry:
    """As `POST /models/{name}/load`: the parameter `checkpoint` says which one, without it the configured one comes again."""
    known(services, name)
    parameters = (await _read(request, OipRepositoryRequest)).parameters or {}
    foreign = next((key for key in parameters if key == "config" or key.startswith("file:")), None)
    if foreign is not None:
        raise MalformedRequest(f"the parameter {foreign[:50]!r} is not taken here: name a checkpoint")
    wanted = parameters.get("checkpoint")
    if wanted is not None and not (isinstance(wanted, str) and 1 <= len(wanted) <= MAX_LENGTH):
        raise MalformedRequest(f"the parameter checkpoint should be text of 1 to {MAX_LENGTH} characters")
    await services.swaps.load(None if wanted is None else allowed(wanted, services.settings.model_dir))
    return _entry(services)


@router.post(
    "/v2/repository/models/{name}/unload",
    response_description="Nothing serves now.",
    responses=errors(404, 415, 500, 503, plain=True),
    summary="Serve nothing until a checkpoint is loaded",
)
async def oip_unload(services: Has, name: Name) -> OipIndexEntry:
    """As `POST /models/{name}/unload`; a body may come, but has nothing to say."""
    known(services, name)
    await services.swaps.unload()
    return _entry(services)


async def _read(request: Request, schema: type[JsonT]) -> JsonT:
    """The body, which may be left out."""
    body = (await request.body()).removeprefix(BOM)
    check_texts(body)
    return parsed(body, schema) if body.strip() else schema()


def _entry(services: Services) -> OipIndexEntry:
    state, reasons = services.classifier.state, services.classifier.reasons
    return OipIndexEntry(
        name=services.settings.model_name,
        version=oip.VERSION,
        state=_STATES.get(state, "UNAVAILABLE"),
        reason="; ".join(reasons),
    )
