"""Vertex AI's contract with a custom container: a health and a predict route, at the paths that the platform says.

https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter

from app.classifier import Classified, Wanted
from app.context import context_of
from app.dialects import Dialect
from app.errors import BodyTooLarge, InstanceUnusable, InvalidParameter, MalformedRequest
from app.openapi import errors
from app.rankings import predictions_in, predictions_of
from app.routes.classify import json_of
from app.routes.direct import Direct
from app.routes.probes import NOT_READY, readyz
from app.schemas.native import TINY_PNG, PredictionJson, Ready
from app.schemas.vertex import VertexAnswer, VertexInstance, VertexJson, VertexParameters
from app.services import Has, services_of
from app.settings import PING, READY, Settings, speaks
from app.sources import decode_base64, only_json
from app.threads import written
from model.errors import ImageError

TAG = "Vertex AI"
_PREDICTIONS = TypeAdapter(list[PredictionJson])
_OF_ONE = (ImageError, BodyTooLarge, MalformedRequest)  # what the bytes of an instance can be refused for
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/VertexJson"},
            "example": {"instances": [{"b64": TINY_PNG}], "parameters": {"top_k": 3}},
        }
    },
}


def dialect(settings: Settings) -> Dialect:
    """At the paths of the settings. A health route that the service has anyway stays as it is."""
    router = APIRouter(tags=[TAG])
    health, predict = settings.vertex_health_route, settings.vertex_predict_route
    if health not in (*READY, PING) or (health == PING and "sagemaker" not in speaks(settings)):
        router.add_api_route(
            health,
            vertex_health,
            response_model=Ready,
            response_description="It does.",
            responses=NOT_READY,
            summary="Does a model serve?",
        )
    router.add_api_route(
        predict,
        vertex_predict,
        methods=["POST"],
        route_class_override=Direct,
        response_model=VertexAnswer,
        response_description="A ranking for each instance.",
        responses=errors(400, 408, 413, 415, 422, 429, 500, 503, 504),
        openapi_extra={"requestBody": _BODY},
        summary="Classify instances",
    )
    tags = ({"name": TAG, "description": "What Vertex AI asks of a custom container, at the paths that it says."},)
    inputs = {predict: settings.max_batch_body_bytes}
    return Dialect(router, inputs=inputs, probes=frozenset({health}), tags=tags, schemas=(VertexJson,))


async def vertex_health(services: Has, response: Response) -> Ready:
    """200 once a warmed model serves and while the service is not shutting down; else 503 with the reasons."""
    return await readyz(services, response)


async def vertex_predict(request: Request) -> Response:
    """A ranking for each instance, in order. One that cannot be used fails them all, by name: there is no place for its error."""
    services, context = services_of(request), context_of(request.scope)
    # More images than the queue holds would never be admitted, however often the client came back.
    most = min(services.settings.max_images, services.settings.max_queue)
    sent = await only_json(request, VertexJson, most)
    if not sent.instances:
        raise MalformedRequest("there are no instances")
    if len(sent.instances) > most:
        raise InvalidParameter("number of instances", len(sent.instances), f"a whole number from 1 to {most}", most)
    images = [await _image(i, each, services.settings.max_body_bytes) for i, each in enumerate(sent.instances)]
    asked = sent.parameters or VertexParameters()
    _, results = await services.classifier.tell_many(images, Wanted(asked.top_k, asked.min_score), context.deadline)
    found = [_usable(i, result) for i, result in enumerate(results)]
    context.timings.extend(each.timings for each in found)
    return json_of(await written(partial(_answer, found), predictions_in(found)))


def _answer(found: Sequence[Classified]) -> str:
    # One by one: each holds the interpreter for a moment only.
    rows = [_PREDICTIONS.validate_python(predictions_of(each)) for each in found]
    return VertexAnswer.model_validate({"predictions": rows}).model_dump_json()


async def _image(index: int, instance: VertexInstance, max_bytes: int) -> bytes:
    text = instance.b64 if instance.image is None else instance.image.b64
    if text is None or (instance.b64 is not None and instance.image is not None):
        raise InstanceUnusable(index, 'an instance should be {"b64": ...} or {"image": {"b64": ...}}')
    try:
        return await asyncio.to_thread(decode_base64, text, max_bytes)
    except _OF_ONE as error:
        raise InstanceUnusable(index, str(error)) from None


def _usable(index: int, result: Classified | Exception) -> Classified:
    """Raises InstanceUnusable where the image is at fault, and all else as it is: it concerns the whole request."""
    if isinstance(result, Classified):
        return result
    raise InstanceUnusable(index, str(result)) if isinstance(result, _OF_ONE) else result
