"""The service's own JSON: requests and answers of `/classify`, `/classify/batch`, `/models` and the probes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, FailFast, Field, model_validator

from app.schemas.attention import UnitJson
from app.schemas.problem import Problem
from app.schemas.wire import Wire

# A whole image of 4 x 4 pixels, so that what a documentation page fills in can be sent as it is.
TINY_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAAFElEQVR42mM8UaHBAANMDEgANwcAR/QBcPbvf+MAAAAASUVORK5CYII="


Base64 = Annotated[str, Field(json_schema_extra={"format": "byte"})]
_TEXTS: dict[str, dict[str, Any]] = {"image": {"type": "string", "format": "byte"}, "url": {"type": "string"}}


def _only(name: str) -> dict[str, Any]:
    """The schema of an object in which this field is given, and the other one is left out or null."""
    return {"required": [name], "properties": {each: text if each == name else {"type": "null"} for each, text in _TEXTS.items()}}


class ImageJson(Wire):
    """An image inside JSON: either its bytes in base64 (or a data URI), or where it is."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_only("image"), _only("url")]})

    image: Base64 | None = Field(
        None, description="Base64 of the encoded image, or a `data:` URI.", examples=[f"data:image/png;base64,{TINY_PNG}"]
    )
    url: str | None = Field(
        None,
        description="Address of the image, http or https; where the service allows it.",
        examples=["https://example.org/cat.jpg"],
    )

    @model_validator(mode="after")
    def exactly_one(self) -> ImageJson:
        if (self.image is None) == (self.url is None):
            raise ValueError("give exactly one of image and url")
        return self


class BatchJson(Wire):
    """Several images inside JSON."""

    images: Annotated[list[Base64], FailFast()] = Field(
        description="Base64 or `data:` URI of each image.", examples=[[TINY_PNG]], json_schema_extra={"minItems": 1}
    )


class PredictionJson(Wire):
    """One class of the ranking."""

    index: int = Field(description="Position of the class in the network's output.", examples=[3])
    label: str = Field(description="Name of the class; not always unique.", examples=["cat"])
    score: float = Field(description="Softmax probability, 0 to 1.", examples=[0.97])
    wnid: str | None = Field(description="WordNet id, unique, where the labels have one.", examples=["n02123045"])


class ModelRef(Wire):
    """Which model answered."""

    name: str = Field(description="Name of the model in this service.", examples=["default"])
    variant: str = Field(description="Architecture.", examples=["skresnet18"])
    digest: str = Field(description="SHA-256 of the weights file.", examples=["sha256:2f1c..."])


class ImageJsonInfo(Wire):
    """What the image was."""

    width: int = Field(description="Pixels, after EXIF orientation.", examples=[4032])
    height: int = Field(description="Pixels, after EXIF orientation.", examples=[3024])
    format: str = Field(description="Format found in the bytes.", examples=["JPEG"])


# With a WordNet id, since the document leaves null out of its examples.
_CAT = {"index": 281, "label": "tabby, tabby cat", "score": 0.97, "wnid": "n02123045"}


class ClassifyAnswer(Wire):
    """The ranking of one image."""

    predictions: list[PredictionJson] = Field(description="Best first; ties by index.", examples=[[_CAT]])
    model: ModelRef = Field(description="Which model answered.")
    image: ImageJsonInfo = Field(description="What the image was.")
    kernel_attention: list[UnitJson] | None = Field(
        None, description="Every selective-kernel unit in network order, where `explain=kernel_attention` asked for it."
    )
    comparable_to_paper: bool | None = Field(
        None,
        description="Beside `kernel_attention`: whether it reads as in the paper; not where the input is split.",
        examples=[True],
    )
    comparable_reason: str | None = Field(
        None, description="Why, in words.", examples=["every branch sees the whole input, as in the paper"]
    )


_NO_IMAGE = {
    "example": {
        "type": "/problems/image-undecodable",
        "title": "The bytes are no readable image",
        "status": 422,
        "detail": "the image is cut off or damaged",
    }
}


class BatchResult(Wire):
    """One image of a batch: its ranking, or its problem."""

    index: int = Field(description="Position in the request.", examples=[0])
    filename: str | None = Field(None, description="Name that came with the part.", examples=["a.jpg"])
    status: int = Field(description="What the status would have been, had the image come alone.", examples=[200])
    predictions: list[PredictionJson] | None = Field(None, description="Present where status is 200.", examples=[[_CAT]])
    kernel_attention: list[UnitJson] | None = Field(
        None, description="Every selective-kernel unit in network order, where `explain=kernel_attention` asked for it."
    )
    problem: Problem | None = Field(None, description="Present where status is not 200.", examples=[_NO_IMAGE["example"]])


class BatchAnswer(Wire):
    """One result for each image, in request order."""

    model: ModelRef = Field(description="Which model answered.")
    comparable_to_paper: bool | None = Field(
        None, description="Where kernel attention was asked for: whether it reads as in the paper.", examples=[True]
    )
    comparable_reason: str | None = Field(
        None, description="Why, in words.", examples=["every branch sees the whole input, as in the paper"]
    )
    results: list[BatchResult] = Field(
        description="In request order.",
        examples=[
            [
                {"index": 0, "filename": "a.jpg", "status": 200, "predictions": [_CAT]},
                {"index": 1, "filename": "b.txt", "status": 422, "problem": _NO_IMAGE["example"]},
            ]
        ],
    )


class Live(Wire):
    """The process answers."""

    status: Literal["alive"] = Field(
        "alive", description="Always the same: a process that does not live does not answer.", examples=["alive"]
    )


class Ready(Wire):
    """Whether a warmed model serves, and if not, why."""

    ready: bool = Field(description="Whether requests are answered.", examples=[True])
    reasons: list[str] = Field(description="Empty when ready.", examples=[[]])


class ChoiceJson(Wire):
    """Something the service decided."""

    value: str = Field(description="What was decided.", examples=["cpu"])
    reason: str = Field(description="Why, in words.", examples=["no CUDA device was found"])


class LabelJson(Wire):
    """One class."""

    index: int = Field(description="Position in the network's output.", examples=[3])
    label: str = Field(description="Name of the class; not always unique.", examples=["cat"])
    wnid: str | None = Field(None, description="WordNet id, unique, where the labels have one.", examples=["n02123045"])


class PreprocessJson(Wire):
    """How pixels become the network's input."""

    size: tuple[int, int] = Field(description="Height and width in pixels.", examples=[[224, 224]])
    crop_pct: float = Field(description="Part of the resized shorter side that the crop keeps, 0 to 1.", examples=[0.875])
    crop_mode: str = Field(description="Which part of the image is kept.", examples=["center"])
    interpolation: str = Field(description="Filter of the resize.", examples=["bicubic"])
    mean: tuple[float, float, float] = Field(
        description="Subtracted from each channel, on the scale 0 to 1.", examples=[[0.485, 0.456, 0.406]]
    )
    std: tuple[float, float, float] = Field(description="Each channel is divided by it.", examples=[[0.229, 0.224, 0.225]])
    description: str = Field(description="The same in one sentence.", examples=["shorter side to 256 pixels, centre crop of 224"])


class ModelAnswer(Wire):
    """Everything there is to say of a model."""

    name: str = Field(description="Name of the model in this service.", examples=["default"])
    state: Literal["loading", "ready", "unloaded", "draining", "failed"] = Field(
        description="What it is doing.", examples=["ready"]
    )
    variant: str = Field(description="Architecture.", examples=["skresnet18"])
    arguments: dict[str, Any] = Field(
        description="Constructor arguments of SKNet.",
        examples=[
            {
                "block": "basic",
                "layers": [2, 2, 2, 2],
                "num_classes": 1000,
                "kernel_sizes": [3, 5],
                "base_width": 64,
                "cardinality": 1,
            }
        ],
    )
    parameters: int = Field(description="Learned numbers of the network.", examples=[11958056])
    gmacs: float = Field(description="10**9 multiply-accumulates for one image.", examples=[1.814338])
    preprocess: PreprocessJson = Field(description="How pixels become the network's input.")
    labels: list[LabelJson] = Field(
        description="Every class, in the order of the network's output.", examples=[[{"index": 3, "label": "cat", "wnid": None}]]
    )
    engine: ChoiceJson = Field(description="What runs the network.")
    device: ChoiceJson = Field(description="Where it runs.")
    dtype: ChoiceJson = Field(description="Arithmetic of the network.")
    memory_format: ChoiceJson = Field(description="Layout of the tensors.")
    threads: ChoiceJson = Field(description="Processor threads of the engine.")
    streams: ChoiceJson = Field(description="Calls of the engine side by side.")
    batch_size: int = Field(description="Most images of one call.", examples=[1])
    deviation: float | None = Field(
        description="How far the logits of a few images were from the float32 reference's at warm-up, relatively (root mean "
        "square); null where the engine is the reference.",
        examples=[0.006],
    )
    images_per_second: float | None = Field(description="Of the engine alone, measured at warm-up.", examples=[215.0])
    checkpoint: str = Field(description="Where the weights came from.", examples=["bundled:cifar10"])
    digest: str = Field(description="SHA-256 of the weights file.", examples=["sha256:2f1c..."])
    licence: str | None = Field(description="Licence of the weights, where it is known.", examples=["apache-2.0"])
    accuracy: dict[str, float] = Field(description="Published figures, percent.", examples=[{"top1": 73.02, "top5": 91.172}])
    description: str | None = Field(description="What the weights are, in words.", examples=["SKNet trained on CIFAR-10"])
    load_seconds: float = Field(description="Time to load and warm the model.", examples=[0.4])


class LoadJson(Wire):
    """Which checkpoint to load."""

    checkpoint: str | None = Field(
        None,
        min_length=1,
        max_length=1024,
        description="`bundled:NAME`, a name of the registry, or a path inside the folder that the settings name; left out, the "
        "checkpoint of the settings is loaded once more.",
        examples=["bundled:cifar10"],
    )


class UnloadAnswer(Wire):
    """What became of the model."""

    name: str = Field(description="Name of the model in this service.", examples=["default"])
    state: Literal["loading", "ready", "unloaded", "draining", "failed"] = Field(
        description="`unloaded`, unless something else was asked for meanwhile.", examples=["unloaded"]
    )


class ModelsAnswer(Wire):
    """Every model of the service."""

    models: list[ModelAnswer] = Field(description="Every model that serves.")
