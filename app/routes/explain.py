"""`POST /explain`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic.json_schema import SkipJsonSchema

from app.accept import preferred
from app.context import context_of
from app.openapi import IMAGE_BODY, errors
from app.pieces import Pieces
from app.routes.classify import MinScore, TopK
from app.schemas.explain import ExplainAnswer
from app.services import services_of
from app.sources import one_image
from model.types import Explanation, ModelInfo

JSON, PNG = "application/json", "image/png"
router = APIRouter(tags=["classify"])

ClassIndex = Annotated[
    int | SkipJsonSchema[None],
    Query(
        description="The class whose activation map is wanted, 0 to the number of classes less one; else the first prediction.",
        examples=[3],
        json_schema_extra={"minimum": 0},  # told here, held by the classifier: it knows the maximum as well
    ),
]
Picture = Annotated[
    Literal["figure", "overlay"],
    Query(
        description="With `Accept: image/png`: the figure of everything, or the image in its own size under the activation map.",
        examples=["figure"],
    ),
]
_PNG_TOO: dict[int | str, dict[str, Any]] = {
    200: {"content": {PNG: {"schema": {"type": "string", "format": "binary", "description": "With `Accept: image/png`."}}}}
}


@router.post(
    "/explain",
    response_model=ExplainAnswer,
    response_description="The explanation; with `Accept: image/png` a picture of it.",
    responses={**_PNG_TOO, **errors(400, 403, 406, 408, 413, 415, 422, 429, 500, 503, 504)},
    openapi_extra={"requestBody": IMAGE_BODY},
    summary="Say why an image is classified as it is",
)
async def explain(
    request: Request,
    top_k: TopK = None,
    min_score: MinScore = 0.0,
    class_index: ClassIndex = None,
    picture: Picture = "figure",
) -> Response:
    """Which kernel sizes the network chose, with the centre enlarged 1.0, 1.5 and 2.0 times, and where a class was seen."""
    services, context = services_of(request), context_of(request.scope)
    as_picture = preferred(",".join(request.headers.getlist("accept")), (JSON, PNG)) == PNG
    data = await one_image(request, services.fetch)
    found = await services.classifier.explain(
        data,
        top_k=top_k,
        min_score=min_score,
        class_index=class_index,
        picture=picture if as_picture else None,
        deadline=context.deadline,
    )
    context.timings.append(found.timings)
    if found.picture is not None:
        services.room.take(context, len(found.picture))  # tens of megabytes, perhaps, until they are sent
        return Pieces(found.picture, media_type=PNG, headers={"Vary": "Accept"})
    # With a thousand classes to tell it would hold the loop.
    body = await asyncio.to_thread(_json, found.explanation, found.info, services.settings.model_name)
    return Response(body, media_type=JSON, headers={"Vary": "Accept"})


def _json(explanation: Explanation, info: ModelInfo, name: str) -> str:
    return ExplainAnswer.model_validate(answer_of(explanation, info, name)).model_dump_json()


def answer_of(explanation: Explanation, info: ModelInfo, name: str) -> dict[str, Any]:
    """An explanation by the model of this name, as `ExplainAnswer` has it."""
    told = asdict(explanation)
    attention, activation = told["attention"], told["activation"]
    return {
        "predictions": told["predictions"],
        "model": {"name": name, "variant": info.variant, "digest": info.digest},
        "image": told["image"],
        "kernel_attention": attention["units"],
        "comparable_to_paper": attention["comparable_to_paper"],
        "comparable_reason": attention["reason"],
        "scale_sweep": [
            {"scale": s["scale"], "predictions": s["predictions"], "kernel_attention": s["units"], "box": s["box"]}
            for s in told["scales"]
        ],
        "class_activation": {
            **activation["prediction"],
            "logit": activation["logit"],
            "bias": activation["bias"],
            "map": activation["values"],
            "box": activation["box"],
        },
    }
