"""The answer of `POST /explain` in JSON."""

from __future__ import annotations

from pydantic import Field

from app.schemas.attention import UnitJson
from app.schemas.native import ImageJsonInfo, ModelRef, PredictionJson
from app.schemas.wire import Wire

_CAT = {"index": 281, "label": "tabby, tabby cat", "score": 0.97, "wnid": "n02123045"}


class BoxJson(Wire):
    """A part of the upright image, edges in its pixels."""

    left: float = Field(description="From the left edge of the image.", examples=[376.0])
    top: float = Field(description="From the top edge of the image.", examples=[189.0])
    right: float = Field(description="From the left edge of the image.", examples=[3656.0])
    bottom: float = Field(description="From the top edge of the image.", examples=[2835.0])


class ScaleJson(Wire):
    """The same image with its centre enlarged."""

    scale: float = Field(description="How many times the centre was enlarged, by a crop of the original pixels.", examples=[1.5])
    predictions: list[PredictionJson] = Field(description="Best first.", examples=[[_CAT]])
    kernel_attention: list[UnitJson] = Field(description="Every selective-kernel unit in network order.")
    box: BoxJson = Field(description="What the network saw of the image.")


class ActivationJson(Wire):
    """Class activation map: where the evidence for one class lies."""

    index: int = Field(description="Position of the class in the network's output.", examples=[281])
    label: str = Field(description="Name of the class.", examples=["tabby, tabby cat"])
    score: float = Field(description="Softmax probability of the class, 0 to 1.", examples=[0.97])
    wnid: str | None = Field(description="WordNet id, where the labels have one.", examples=["n02123045"])
    logit: float = Field(description="What the network gave the class: the mean of `map`, plus `bias`.", examples=[11.2])
    bias: float = Field(description="The classifier's own part of it.", examples=[0.02])
    map: list[list[float]] = Field(
        description="Rows from top to bottom, never rescaled; each value belongs to an equal part of `box`.",
        examples=[[[3.1, 12.9], [7.2, 21.6]]],
    )
    box: BoxJson = Field(description="The part of the image that the map covers.")


class ExplainAnswer(Wire):
    """Why an image was ranked as it was."""

    predictions: list[PredictionJson] = Field(description="Best first; ties by index.", examples=[[_CAT]])
    model: ModelRef = Field(description="Which model answered.")
    image: ImageJsonInfo = Field(description="What the image was.")
    kernel_attention: list[UnitJson] = Field(description="Every selective-kernel unit in network order.")
    comparable_to_paper: bool = Field(
        description="Whether kernel attention reads as in the paper; not where the input is split.", examples=[True]
    )
    comparable_reason: str = Field(description="Why, in words.", examples=["every branch sees the whole input, as in the paper"])
    scale_sweep: list[ScaleJson] = Field(description="At 1.0, 1.5 and 2.0; the first is the ordinary pass.")
    class_activation: ActivationJson = Field(description="For the class asked for, else the first prediction.")
