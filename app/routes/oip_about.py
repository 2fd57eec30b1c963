"""The Open Inference Protocol over REST: what serves, whether it is ready, and what the model takes and gives."""

from __future__ import annotations

from importlib.metadata import version as version_of

from fastapi import APIRouter, Response

from app import oip
from app.openapi import errors
from app.routes.models import Name
from app.schemas.oip import OipLive, OipModel, OipModelReady, OipReady, OipServer, OipTensor
from app.schemas.problem import PlainError
from app.services import Has, Services

TAG = "Open Inference Protocol"
router = APIRouter(tags=[TAG])
_MODEL = errors(404, 500, 503, plain=True)


@router.get("/v2", response_description="What serves.", summary="Name, version and extensions")
async def oip_server() -> OipServer:
    """What serves, and which extensions of the protocol it speaks."""
    return OipServer(name="sknet", version=version_of("sknet-serve"), extensions=list(oip.EXTENSIONS))


@router.get("/v2/health/live", response_description="It does.", summary="Does the process answer?")
async def oip_live() -> OipLive:
    """200 while the process can answer at all."""
    return OipLive(live=True)


@router.get(
    "/v2/health/ready",
    response_model=OipReady,
    response_description="It does.",
    responses=errors(503, plain=True),
    summary="Does a model serve?",
)
async def oip_ready(services: Has) -> OipReady | Response:
    """200 once a warmed model serves and while the service is not shutting down."""
    return _refusal(services) or OipReady(ready=True)


@router.get("/v2/models/{name}", response_description="The model.", responses=_MODEL, summary="Inputs and outputs of the model")
async def oip_model(services: Has, name: Name) -> OipModel:
    """Of the three inputs a request gives exactly one: `image` (encoded), `pixels` (RGB), or `input` (normalised)."""
    return await oip_model_version(services, name, "")


@router.get("/v2/models/{name}/versions/{version}", include_in_schema=False)
async def oip_model_version(services: Has, name: Name, version: str) -> OipModel:
    """As without a version, since there is one."""
    oip.check_model(name, version, services.settings.model_name)
    info = services.classifier.model.info
    told = [[OipTensor(name=s.name, datatype=s.datatype, shape=list(s.shape)) for s in specs] for specs in oip.tensors(info)]
    return OipModel(name=name, versions=[oip.VERSION], platform=oip.platform(info), inputs=told[0], outputs=told[1])


@router.get(
    "/v2/models/{name}/ready",
    response_model=OipModelReady,
    response_description="It does.",
    responses=_MODEL,
    summary="Does the model serve?",
)
async def oip_model_ready(services: Has, name: Name) -> OipModelReady | Response:
    """200 while it does."""
    return await oip_model_version_ready(services, name, "")


@router.get("/v2/models/{name}/versions/{version}/ready", response_model=OipModelReady, include_in_schema=False)
async def oip_model_version_ready(services: Has, name: Name, version: str) -> OipModelReady | Response:
    """As without a version, since there is one."""
    oip.check_model(name, version, services.settings.model_name)
    return _refusal(services) or OipModelReady(name=name, ready=True)


def _refusal(services: Services) -> Response | None:
    """Why no model serves, if none does. A probe, so it counts for no refused request."""
    reasons = services.classifier.reasons
    text = PlainError(error="the service is not ready: " + "; ".join(reasons)).model_dump_json()
    return Response(text, 503, {"Retry-After": "1"}, "application/json") if reasons else None
