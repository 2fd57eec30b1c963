"""SageMaker's contract with a container: `GET /ping` and `POST /invocations`. Answers and errors are the service's own.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app.accept import accepts
from app.classifier import Wanted
from app.context import context_of
from app.dialects import Dialect
from app.errors import NotAcceptable
from app.openapi import IMAGE_BODY, errors
from app.routes.classify import answered
from app.routes.direct import Direct
from app.routes.probes import NOT_READY, readyz
from app.schemas.native import ClassifyAnswer, Ready
from app.schemas.sagemaker import Attributes
from app.services import Has, services_of
from app.settings import Settings
from app.sources import one_image

TAG = "SageMaker"
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"  # all that reaches a container beside the body: no query string does
JSON = "application/json"
_HEADER = {
    "name": ATTRIBUTES,
    "in": "header",
    "required": False,
    "description": "`top_k`, `min_score` and `explain` as `POST /classify` has them, with commas between; all else is ignored.",
    "schema": {"type": "string", "examples": ["top_k=3,min_score=0.1"]},
}
_BODY: dict[str, Any] = {
    **IMAGE_BODY,
    "content": {**IMAGE_BODY["content"], "application/x-image": IMAGE_BODY["content"]["application/octet-stream"]},
}


def dialect(settings: Settings) -> Dialect:
    """Where SageMaker looks for them; neither path can be moved."""
    router = APIRouter(tags=[TAG])
    router.add_api_route(
        "/ping",
        ping,
        response_model=Ready,
        response_description="It does.",
        responses=NOT_READY,
        summary="Does a model serve?",
    )
    router.add_api_route(
        "/invocations",
        invocations,
        methods=["POST"],
        route_class_override=Direct,
        response_model=ClassifyAnswer,
        response_description="The ranking, best class first.",
        responses=errors(400, 403, 406, 408, 413, 415, 422, 429, 500, 503, 504),
        openapi_extra={"requestBody": _BODY, "parameters": [_HEADER]},
        summary="Classify one image",
    )
    tags = ({"name": TAG, "description": "What SageMaker asks of a container that it runs as `serve`."},)
    return Dialect(router, inputs={"/invocations": settings.max_body_bytes}, probes=frozenset({"/ping"}), tags=tags)


async def ping(services: Has, response: Response) -> Ready:
    """200 once a warmed model serves and while the service is not shutting down; else 503 with the reasons. Never waits."""
    return await readyz(services, response)


async def invocations(request: Request) -> Response:
    """As `POST /classify`; a raw body may also be `application/x-image`, or of no type at all."""
    services, context = services_of(request), context_of(request.scope)
    accept = ",".join(request.headers.getlist("accept"))
    if not accepts(accept, JSON):  # the caller would throw it away: the platform hands on what it asked for
        raise NotAcceptable(f"the answer is {JSON}, which the Accept {accept[:100]!r} leaves out", [JSON])
    asked = _attributes(",".join(request.headers.getlist(ATTRIBUTES)))
    data = await one_image(request, services.fetch, untyped=True)
    wanted = Wanted(asked.top_k, asked.min_score, asked.explain is not None)
    return answered(services, context, await services.classifier.tell(data, wanted, context.deadline))


def _attributes(header: str) -> Attributes:
    """Raises RequestValidationError, as the framework does of parameters in a query."""
    pairs = (pair.partition("=") for pair in header.split(","))
    try:
        return Attributes.model_validate({name.strip(): value.strip() for name, _, value in pairs})
    except ValidationError as error:
        raise RequestValidationError([{**fault, "loc": ("header", *fault["loc"])} for fault in error.errors()]) from None
