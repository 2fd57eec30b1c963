"""Hugging Face's image classification: `POST /hf`, and `POST /` where the settings say so.

As the hub's own containers do: a raw body of any media type or none is an image, and more classes than there are is all of them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter

from app.classifier import Wanted
from app.context import context_of
from app.dialects import Dialect
from app.openapi import errors
from app.routes.classify import json_of
from app.routes.direct import Direct
from app.schemas.huggingface import HuggingFaceJson, HuggingFaceParameters, LabelScore
from app.schemas.native import TINY_PNG
from app.schemas.problem import PlainError
from app.services import services_of
from app.settings import Settings
from app.sources import at_url, decode_base64, raw_or_json

TAG = "Hugging Face"
_BINARY = {"schema": {"type": "string", "format": "binary", "description": "The encoded image, and nothing else."}}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "application/json": {
            "schema": {"$ref": "#/components/schemas/HuggingFaceJson"},
            "example": {"inputs": TINY_PNG, "parameters": {"top_k": 3}},
        },
    },
}
_ANSWER = TypeAdapter(list[LabelScore])


def dialect(settings: Settings) -> Dialect:
    """At `/hf`, beside everything else."""
    return _dialect("/hf", "huggingface", settings)


def at_root(settings: Settings) -> Dialect:
    """At `/`, where clients post whose address has no path."""
    return _dialect("/", "huggingface_root", settings)


def _dialect(path: str, name: str, settings: Settings) -> Dialect:
    router = APIRouter(tags=[TAG], route_class=Direct)
    router.add_api_route(
        path,
        classify,
        methods=["POST"],
        name=name,
        response_model=list[LabelScore],
        response_description="The ranking, best class first.",
        responses=errors(400, 403, 408, 413, 415, 422, 429, 500, 503, 504, plain=True),
        openapi_extra={"requestBody": _BODY},
        summary="Classify one image, as Hugging Face does",
    )
    tags = ({"name": TAG, "description": "What `huggingface_hub.InferenceClient` speaks."},)
    return Dialect(
        router,
        inputs={path: settings.max_body_bytes},
        tags=tags,
        schemas=(HuggingFaceJson, PlainError),
        plain=lambda method, asked: asked == path and (method == "POST" or path != "/"),  # `GET /` is the page
    )


async def classify(request: Request) -> Response:
    """Send an image as the raw body, whatever its Content-Type, or as base64 in JSON with parameters; get labels and scores."""
    services, context = services_of(request), context_of(request.scope)
    sent = await raw_or_json(request, HuggingFaceJson)
    if isinstance(sent, bytes):
        data, asked = sent, HuggingFaceParameters()
    else:
        data, asked = await _image(request, sent.inputs), sent.parameters or HuggingFaceParameters()
    top_k = None if asked.top_k is None else min(asked.top_k, services.classifier.model.info.num_classes)
    found = await services.classifier.tell(data, Wanted(top_k, function=asked.function_to_apply or "softmax"), context.deadline)
    context.timings.append(found.timings)
    answer = [LabelScore.model_construct(label=p.label, score=p.score) for p in found.predictions]
    return json_of(_ANSWER.dump_json(answer))


async def _image(request: Request, text: str) -> bytes:
    if text[:8].lower().startswith(("http://", "https://")):  # no base64 has a colon
        return await at_url(request, text, services_of(request).fetch)
    return await asyncio.to_thread(decode_base64, text)
