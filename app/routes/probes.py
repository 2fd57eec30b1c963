"""`/livez`, `/readyz`, `/healthz`, `/metrics`: never queued, never waiting for the model, no key needed."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from app.metrics import CONTENT_TYPE, EXAMPLE
from app.schemas.native import Live, Ready
from app.services import Has

router = APIRouter(tags=["service"])
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {
        "model": Ready,
        "description": "Not ready, with the reasons.",
        "headers": {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}},
    }
}


@router.get("/livez", response_model=Live, response_description="It does.", summary="Does the process answer?")
async def livez() -> Live:
    """200 while the process can answer at all."""
    return Live(status="alive")


@router.get("/readyz", response_model=Ready, response_description="It does.", responses=NOT_READY, summary="Does a model serve?")
async def readyz(services: Has, response: Response) -> Ready:
    """200 once a warmed model serves and while the service is not shutting down; else 503 with the reasons."""
    reasons = list(services.classifier.reasons)
    if reasons:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return Ready(ready=not reasons, reasons=reasons)


@router.get("/healthz", response_model=Ready, response_description="It does.", responses=NOT_READY, summary="The same as /readyz")
async def healthz(services: Has, response: Response) -> Ready:
    """The same as `/readyz`, under the name that many platforms expect."""
    return await readyz(services, response)


@router.get(
    "/metrics",
    response_class=Response,
    response_description="Every metric.",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE}}}},
    summary="Prometheus metrics",
)
async def metrics(services: Has) -> Response:
    """Counts and times in the Prometheus text format."""
    return Response(await services.metrics.all(), headers={"Content-Type": CONTENT_TYPE})
