"""Image classification as Hugging Face's clients ask for it and read it.

https://huggingface.co/docs/inference-providers/tasks/image-classification
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.native import TINY_PNG, Base64
from app.schemas.wire import Whole, Wire


class HuggingFaceParameters(Wire):
    """What is wanted of the image."""

    top_k: Whole | None = Field(
        None,
        description="How many classes to return, 1 or more; never more than there are. 5 unless the settings say otherwise.",
        examples=[3],
        json_schema_extra={"minimum": 1},  # told here, held by the classifier
    )
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None, description="What makes scores of the network's output; `softmax` where it is left out.", examples=["softmax"]
    )


class HuggingFaceJson(BaseModel):
    """An image with parameters. What else there is, such as `options`, is for the queue of the hub and ignored."""

    model_config = ConfigDict(extra="ignore")

    inputs: Base64 = Field(
        description="Base64 of the encoded image, or a `data:` URI; where the service allows it, an address.", examples=[TINY_PNG]
    )
    parameters: HuggingFaceParameters | None = Field(None, description="What is wanted of the image.", examples=[{"top_k": 3}])


class LabelScore(Wire):
    """One class of the ranking."""

    label: str = Field(description="Name of the class; not always unique.", examples=["cat"])
    score: float = Field(description="What `function_to_apply` made of the network's output.", examples=[0.97])
