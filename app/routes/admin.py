"""`POST /models/{name}/load` and `/unload`: another model, or none, while the service goes on. Who may ask is decided before."""

from __future__ import annotations

from fastapi import APIRouter, Request

from app.openapi import LOAD_BODY, errors
from app.references import allowed
from app.routes.models import Name, document, known
from app.schemas.native import LoadJson, ModelAnswer, UnloadAnswer
from app.services import Has
from app.sources import optional_json

MAX_BODY_BYTES = 65_536  # a reference is short
router = APIRouter(tags=["models"])


def paths(name: str) -> tuple[str, ...]:
    """The paths of this file for a model."""
    return f"/models/{name}/load", f"/models/{name}/unload"


@router.post(
    "/models/{name}/load",
    response_model=ModelAnswer,
    response_description="The model that serves now.",
    responses=errors(400, 404, 408, 413, 415, 422, 500, 503),
    openapi_extra={"requestBody": LOAD_BODY},
    summary="Load another checkpoint",
)
async def load(request: Request, services: Has, name: Name) -> ModelAnswer:
    """Loaded, warmed and verified beside the model that serves, then put in its place at once. No request fails meanwhile, and
    a checkpoint that cannot serve changes nothing. It goes on when the client leaves.
    """
    known(services, name)
    wire = await optional_json(request, LoadJson)
    reference = None if wire.checkpoint is None else allowed(wire.checkpoint, services.settings.model_dir)
    return document(services, await services.swaps.load(reference))


@router.post(
    "/models/{name}/unload",
    response_model=UnloadAnswer,
    response_description="Nothing serves now.",
    responses=errors(404, 415, 500, 503),
    summary="Serve nothing until something is loaded",
)
async def unload(services: Has, name: Name) -> UnloadAnswer:
    """What was accepted is finished; everything else gets 503, and the service is not ready, until a checkpoint is loaded."""
    known(services, name)
    await services.swaps.unload()
    return UnloadAnswer(name=name, state=services.classifier.state)
