"""Predictions as Vertex AI asks a custom container for them.

https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, FailFast, Field

from app.schemas.native import TINY_PNG, Base64, PredictionJson
from app.schemas.wire import Score, Whole, Wire

# In one place or the other, which is left out or null then.
_ONE_OF: dict[str, Any] = {
    "oneOf": [
        {"required": ["b64"], "properties": {"b64": {"type": "string", "format": "byte"}, "image": {"type": "null"}}},
        {"required": ["image"], "properties": {"b64": {"type": "null"}, "image": {"type": "object"}}},
    ]
}


class VertexBytes(Wire):
    """Bytes inside JSON, as Google's protocols have them."""

    b64: Base64 = Field(description="Base64 of the encoded image, or a `data:` URI.", examples=[TINY_PNG])


class VertexInstance(Wire):
    """One image: its bytes, or the same under the name of the network's input."""

    model_config = ConfigDict(json_schema_extra=_ONE_OF)

    b64: Base64 | None = Field(None, description="Base64 of the encoded image, or a `data:` URI.", examples=[TINY_PNG])
    image: VertexBytes | None = Field(None, description="The same a step further in.", examples=[{"b64": TINY_PNG}])


class VertexParameters(Wire):
    """What is wanted of every image."""

    top_k: Whole | None = Field(
        None,
        description="How many classes to return, 1 to the number of classes; 5 unless the settings say otherwise.",
        examples=[3],
        json_schema_extra={"minimum": 1},  # told here, held by the classifier: it knows the maximum as well
    )
    min_score: Score = Field(0.0, strict=True, description="Leave out classes below this score.", examples=[0.01])


class VertexJson(Wire):
    """Images, and what is wanted of them."""

    instances: Annotated[list[VertexInstance], FailFast()] = Field(
        description="The images.", examples=[[{"b64": TINY_PNG}]], json_schema_extra={"minItems": 1}
    )
    parameters: VertexParameters | None = Field(None, description="What is wanted of every image.", examples=[{"top_k": 3}])


class VertexAnswer(Wire):
    """A ranking for each image."""

    predictions: list[list[PredictionJson]] = Field(
        description="For each instance, in order, its classes: best first; ties by index.",
        examples=[[[{"index": 281, "label": "tabby, tabby cat", "score": 0.97, "wnid": "n02123045"}]]],
    )
