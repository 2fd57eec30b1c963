"""What became of each image that was to be classified, and who can classify many: this process, or a service.

Records and shapes only; knows no wire format and no model.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from app.image_files import Source
from model.types import ImageInfo, KernelAttention, Label, Prediction


@dataclass(frozen=True, slots=True)
class Answer:
    """The ranking of one image; or, where `error` says why there is none, nothing but its name."""

    name: str
    predictions: tuple[Prediction, ...] = ()
    image: ImageInfo | None = None
    attention: KernelAttention | None = None
    error: str | None = None

    def document(self, min_score: float = 0.0) -> dict[str, Any]:
        """As JSON has it: the fields of the service's own answers under the name of the file, or the error."""
        if self.error is not None:
            return {"file": self.name, "error": self.error}
        found: dict[str, Any] = {"file": self.name, "predictions": [asdict(p) for p in self.kept(min_score)]}
        if self.image is not None:
            found["image"] = asdict(self.image)
        if self.attention is not None:
            found["kernel_attention"] = [asdict(unit) for unit in self.attention.units]
            found["comparable_to_paper"] = self.attention.comparable_to_paper
            found["comparable_reason"] = self.attention.reason
        return found

    def kept(self, min_score: float) -> tuple[Prediction, ...]:
        """The predictions of at least this score."""
        return tuple(p for p in self.predictions if p.score >= min_score)


class Gone(Exception):
    """Nothing more can be classified: the service does not answer, or lets nobody in. The text is one line."""


class Backend(AbstractContextManager["Backend"], Protocol):
    """Classifies many images one after the other."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """The model's classes by index."""

    @property
    def about(self) -> Mapping[str, str]:
        """What classifies, in words: `checkpoint`, `variant`, `digest`, `runs`."""

    def classify(self, sources: Iterable[Source], *, k: int, attention: bool = False) -> Generator[Answer]:
        """An answer for each image, in order, while the next ones are read; never holds more than a few of them.

        Raises:
            Gone: nothing more will come.
        """
