"""The Open Inference Protocol's JSON (version 2, REST), with its classification, binary data and model repository extensions.

Unlike in the service's own JSON, what is not described is let pass: the protocol has extensions that change no answer of ours.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from app.schemas.native import TINY_PNG
from app.schemas.wire import Wire


class Open(BaseModel):
    """The base of what clients send. Null is as good as nothing for whatever may be left out."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class OipServer(Wire):
    """What serves."""

    name: str = Field(description="Name of the service.", examples=["sknet"])
    version: str = Field(description="Its version.", examples=["1.0.0"])
    extensions: list[str] = Field(description="Extensions of the protocol.", examples=[["classification", "binary_tensor_data"]])


class OipLive(Wire):
    """The process answers."""

    live: bool = Field(description="Always true.", examples=[True])


class OipReady(Wire):
    """A model serves."""

    ready: bool = Field(description="Always true: where it is not, the answer is an error.", examples=[True])


class OipModelReady(Wire):
    """This model serves."""

    name: str = Field(description="Name of the model.", examples=["default"])
    ready: bool = Field(description="Always true: where it is not, the answer is an error.", examples=[True])


class OipTensor(Wire):
    """An input or output of a model."""

    name: str = Field(description="Name of the tensor.", examples=["pixels"])
    datatype: str = Field(description="Kind of its elements.", examples=["UINT8"])
    shape: list[int] = Field(description="Its dimensions; -1 is the number of images.", examples=[[-1, 224, 224, 3]])


class OipModel(Wire):
    """What a model takes and gives."""

    name: str = Field(description="Name of the model.", examples=["default"])
    versions: list[str] = Field(description="Its versions: there is one, whatever checkpoint serves.", examples=[["1"]])
    platform: str = Field(description="What it runs on, and what it is.", examples=["openvino_sknet"])
    inputs: list[OipTensor] = Field(description="Three, of which a request gives exactly one.")
    outputs: list[OipTensor] = Field(description="Two, of which a request may choose.")


class OipInput(Open):
    """A tensor of a request: `image`, `pixels` or `input`."""

    name: str = Field(description="Which input.", examples=["image"])
    shape: list[StrictInt] = Field(
        description="As in the model's metadata, the number of images first.", examples=[[1]], fail_fast=True
    )
    datatype: str = Field(description="BYTES of image, UINT8 of pixels, FP32 of input.", examples=["BYTES"])
    parameters: dict[str, Any] | None = Field(
        default_factory=dict,
        description="`binary_data_size`: how many bytes of the body after the JSON are its data.",
        examples=[{"binary_data_size": 150528}],
    )
    data: Any = Field(
        None,
        description="Numbers row by row, flat or as lists of lists; of `image` base64 of each. None where the data is binary.",
        examples=[[TINY_PNG]],
        json_schema_extra={
            "anyOf": [
                {"type": "array", "items": {"type": "string", "format": "byte"}, "minItems": 1},
                {"type": "array", "items": {"type": "number"}, "minItems": 1},
                {"type": "array", "items": {"type": "array"}, "minItems": 1},
            ]
        },
    )


class OipRequested(Open):
    """An output that is asked for."""

    name: str = Field(description="`probabilities` or `logits`.", examples=["probabilities"])
    parameters: dict[str, Any] | None = Field(
        default_factory=dict,
        description="`classification`: so many best classes as texts VALUE:INDEX:LABEL; `binary_data`: whether after the JSON.",
        examples=[{"classification": 5}],
    )


class OipRequest(Open):
    """One input, and which outputs are wanted."""

    id: str | None = Field(None, description="Given back in the answer.", examples=["42"])
    parameters: dict[str, Any] | None = Field(
        default_factory=dict,
        description="`binary_data_output`: whether outputs come after the JSON where they do not say themselves.",
        examples=[{"binary_data_output": False}],
    )
    inputs: list[OipInput] = Field(description="Exactly one.", fail_fast=True)  # a fault of each would hold the event loop
    outputs: list[OipRequested] | None = Field(
        default_factory=list, description="Those that are wanted; all where there are none.", fail_fast=True
    )


class OipOutput(Wire):
    """A tensor of an answer."""

    name: str = Field(description="Which output.", examples=["probabilities"])
    shape: list[int] = Field(description="Images, and classes.", examples=[[1, 2]])
    datatype: str = Field(description="FP32; of a classification BYTES.", examples=["FP32"])
    parameters: dict[str, int] | None = Field(
        None, description="`binary_data_size`, where its data comes after the JSON.", examples=[{"binary_data_size": 8}]
    )
    data: list[float] | list[str] | None = Field(
        None,
        description="Numbers row by row, or texts VALUE:INDEX:LABEL.",
        examples=[[0.97, 0.03], ["0.97:281:tabby, tabby cat"]],
    )


class OipAnswer(Wire):
    """The outputs."""

    model_name: str = Field(description="Which model answered.", examples=["default"])
    model_version: str = Field(description="Its version.", examples=["1"])
    id: str | None = Field(None, description="As sent.", examples=["42"])
    outputs: list[OipOutput] = Field(description="In the order in which they were asked for.")


class OipIndexRequest(Open):
    """Which models are to be told."""

    ready: StrictBool | None = Field(False, description="Only those that serve.", examples=[False])


class OipIndexEntry(Wire):
    """A model of the repository."""

    name: str = Field(description="Name of the model.", examples=["default"])
    version: str = Field(description="Its version.", examples=["1"])
    state: str = Field(description="READY, LOADING or UNAVAILABLE.", examples=["READY"])
    reason: str = Field(description="Why, where it is not ready.", examples=[""])


class OipRepositoryRequest(Open):
    """What is to be loaded, or how to unload."""

    parameters: dict[str, Any] | None = Field(
        default_factory=dict,
        description="`checkpoint`: the reference to load; the configured one where not given.",
        examples=[{"checkpoint": "bundled:cifar10"}],
    )
