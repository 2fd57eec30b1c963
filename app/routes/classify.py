"""`POST /classify` and `POST /classify/batch`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic.json_schema import SkipJsonSchema

from app.classifier import Classified
from app.context import RequestContext, context_of
from app.openapi import BATCH_BODY, IMAGE_BODY, errors
from app.problems import log_fault
from app.rankings import answer_of, batch_answer_of, predictions_in
from app.routes.direct import Direct
from app.schemas.native import BatchAnswer, ClassifyAnswer
from app.schemas.wire import Score
from app.services import Services, services_of
from app.sources import many_images, one_image
from app.threads import written

router = APIRouter(tags=["classify"], route_class=Direct)

# May be left out, but not be null: the document must not offer null.
TopK = Annotated[
    int | SkipJsonSchema[None],
    Query(
        description="How many classes to return, 1 to the number of classes; 5 unless the settings say otherwise.",
        examples=[5],
        json_schema_extra={"minimum": 1},  # told here, held by the classifier: it knows the maximum as well
    ),
]
Explain = Annotated[
    Literal["kernel_attention"] | SkipJsonSchema[None],
    Query(
        description="`kernel_attention`: which kernel sizes each unit of the network chose, out of the same pass.",
        examples=["kernel_attention"],
    ),
]
MinScore = Annotated[Score, Query(description="Leave out classes below this score.", examples=[0.01])]


@router.post(
    "/classify",
    response_model=ClassifyAnswer,
    response_description="The ranking, best class first.",
    responses=errors(400, 403, 408, 413, 415, 422, 429, 500, 503, 504),
    openapi_extra={"requestBody": IMAGE_BODY},
    summary="Classify one image",
)
async def classify(request: Request, top_k: TopK = None, min_score: MinScore = 0.0, explain: Explain = None) -> Response:
    """Send an image as the part `file` of a form, as the raw body, or as base64 or url in JSON; get its best classes."""
    services, context = services_of(request), context_of(request.scope)  # asked directly: a dependency costs 20 times that
    data = await one_image(request, services.fetch)
    found = await services.classifier.classify(
        data, top_k=top_k, min_score=min_score, deadline=context.deadline, explain=explain is not None
    )
    return answered(services, context, found)


def answered(services: Services, context: RequestContext, found: Classified) -> Response:
    """The answer to one image that came alone."""
    context.timings.append(found.timings)
    return json_of(answer_of(services.settings.model_name, found))


@router.post(
    "/classify/batch",
    response_model=BatchAnswer,
    response_description="A ranking or a problem for each image.",
    responses=errors(400, 408, 413, 415, 422, 429, 500, 503, 504),
    openapi_extra={"requestBody": BATCH_BODY},
    summary="Classify several images",
)
async def classify_batch(request: Request, top_k: TopK = None, min_score: MinScore = 0.0, explain: Explain = None) -> Response:
    """Always one result for each image, in request order; an image that cannot be used gets a problem of its own."""
    services, context = services_of(request), context_of(request.scope)  # asked directly: a dependency costs 20 times that
    # More images than the queue holds would never be admitted, however often the client came back.
    named = await many_images(
        request, min(services.settings.max_images, services.settings.max_queue), services.settings.max_body_bytes
    )
    info, results = await services.classifier.classify_many(
        [data for _, data in named],
        top_k=top_k,
        min_score=min_score,
        deadline=context.deadline,
        explain=explain is not None,
    )
    for result in results:
        if isinstance(result, Classified):
            context.timings.append(result.timings)
        else:
            log_fault(result, request.scope)
    write = partial(batch_answer_of, services.settings.model_name, info, [name for name, _ in named], results)
    return json_of(await written(write, predictions_in(results)))


def json_of(body: str | bytes) -> Response:
    """An answer that is JSON already."""
    return Response(body, media_type="application/json")
