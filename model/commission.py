"""What is asked of the process that draws: an explanation, its photograph and whose it is, as bytes and back.

JSON for what is words and numbers, whose floats come back as they were, and the pixels behind it. Nothing is unpickled. This file
knows nothing of processes or of how anything is drawn.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from model.figure import Maker
from model.types import (
    Box,
    ClassActivation,
    Explanation,
    ImageInfo,
    KernelAttention,
    Prediction,
    ScaleAttention,
    UnitAttention,
)
from model.wire import LENGTH


@dataclass(frozen=True)
class Commission:
    """A figure to be drawn, from an upright RGB image, as a file of one of `model.plots.FORMS`."""

    image: Image.Image
    explanation: Explanation
    maker: Maker
    form: str = "png"

    def pack(self) -> bytes:
        """As bytes: the length of the JSON, the JSON, the pixels."""
        words = {
            "size": self.image.size,
            "explanation": asdict(self.explanation),
            "maker": asdict(self.maker),
            "form": self.form,
        }
        text = json.dumps(words).encode()
        return b"".join((LENGTH.pack(len(text)), text, self.image.tobytes()))

    @classmethod
    def unpack(cls, data: bytes) -> Commission:
        """Out of bytes that `pack` made.

        Raises:
            ValueError, KeyError, TypeError: they are none.
        """
        (length,) = LENGTH.unpack_from(data)
        start = LENGTH.size + length
        words = json.loads(data[LENGTH.size : start])
        image = Image.frombytes("RGB", tuple(words["size"]), data[start:])
        return cls(image, _explanation(words["explanation"]), Maker(**words["maker"]), words["form"])


def _explanation(words: dict[str, Any]) -> Explanation:
    attention, activation = words["attention"], words["activation"]
    return Explanation(
        image=ImageInfo(**words["image"]),
        predictions=_predictions(words["predictions"]),
        attention=KernelAttention(**{**attention, "units": _units(attention["units"])}),
        scales=tuple(
            ScaleAttention(each["scale"], _predictions(each["predictions"]), _units(each["units"]), Box(**each["box"]))
            for each in words["scales"]
        ),
        activation=ClassActivation(
            prediction=Prediction(**activation["prediction"]),
            logit=activation["logit"],
            bias=activation["bias"],
            values=tuple(map(tuple, activation["values"])),
            box=Box(**activation["box"]),
        ),
    )


def _predictions(words: list[dict[str, Any]]) -> tuple[Prediction, ...]:
    return tuple(Prediction(**each) for each in words)


def _units(words: list[dict[str, Any]]) -> tuple[UnitAttention, ...]:
    return tuple(
        UnitAttention(**{**each, "kernel_sizes": tuple(each["kernel_sizes"]), "mean_attention": tuple(each["mean_attention"])})
        for each in words
    )
