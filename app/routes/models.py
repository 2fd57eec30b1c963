"""`GET /models` and `GET /models/{name}`: what serves, and why it runs as it does."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path

from app.classifier import Model
from app.errors import ModelNotFound
from app.openapi import errors
from app.schemas.native import ChoiceJson, LabelJson, ModelAnswer, ModelsAnswer, PreprocessJson
from app.services import Has, Services
from model.types import Choice

router = APIRouter(tags=["models"])
Name = Annotated[str, Path(description="Name of the model.", examples=["default"])]


@router.get(
    "/models", response_model=ModelsAnswer, response_description="Every model.", responses=errors(500, 503), summary="Every model"
)
async def models(services: Has) -> ModelsAnswer:
    """What this service serves."""
    return ModelsAnswer(models=[document(services, services.classifier.model)])


@router.get(
    "/models/{name}",
    response_model=ModelAnswer,
    response_description="The model.",
    responses=errors(404, 500, 503),
    summary="One model",
)
async def one_model(services: Has, name: Name) -> ModelAnswer:
    """Architecture, preprocessing, labels, origin and accuracy, and the engine, device and precision with their reasons."""
    known(services, name)
    return document(services, services.classifier.model)


def known(services: Services, name: str) -> None:
    """Raises ModelNotFound where the service has no model of that name."""
    if name != services.settings.model_name:
        raise ModelNotFound(name, [services.settings.model_name])


def document(services: Services, model: Model) -> ModelAnswer:
    """Everything there is to say of a model."""
    info = model.info
    return ModelAnswer(
        name=services.settings.model_name,
        state=services.classifier.state,
        variant=info.variant,
        arguments=dict(info.arguments),
        parameters=info.parameters,
        gmacs=info.gmacs,
        preprocess=PreprocessJson(**asdict(info.preprocess), description=model.preprocess_sentence),
        labels=[LabelJson(index=i, label=label.name, wnid=label.wnid) for i, label in enumerate(info.labels)],
        engine=_choice(info.engine),
        device=_choice(info.device),
        dtype=_choice(info.dtype),
        memory_format=_choice(info.memory_format),
        threads=_choice(info.threads),
        streams=_choice(info.streams),
        batch_size=info.batch_size,
        deviation=info.deviation,
        images_per_second=info.images_per_second,
        checkpoint=info.checkpoint,
        digest=info.digest,
        licence=info.licence,
        accuracy=dict(info.accuracy),
        description=info.description,
        load_seconds=info.load_seconds,
    )


def _choice(choice: Choice) -> ChoiceJson:
    return ChoiceJson(value=choice.value, reason=choice.reason)
