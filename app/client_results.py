"""What a caller gets: the shapes of the wire, with what a person asks of them first. Nothing is sent or parsed here."""

from __future__ import annotations

from dataclasses import dataclass

from app.schemas.explain import ExplainAnswer
from app.schemas.native import ClassifyAnswer, ModelAnswer, PredictionJson, UnloadAnswer

Prediction = PredictionJson
ModelDocument = ModelAnswer
Unloaded = UnloadAnswer


def _best(predictions: list[PredictionJson]) -> PredictionJson:
    if not predictions:
        raise LookupError("no class reached the score that was asked for")
    return predictions[0]


class Classification(ClassifyAnswer):
    """The ranking of one image; with `explain=True` kernel attention beside it."""

    @property
    def best(self) -> Prediction:
        """The class with the highest score. Raises LookupError where `min_score` left none."""
        return _best(self.predictions)

    @property
    def scores(self) -> dict[int, float]:
        """Score by class index: labels are not always unique."""
        return {each.index: each.score for each in self.predictions}


class Explanation(ExplainAnswer):
    """Why an image was ranked as it was."""

    @property
    def best(self) -> Prediction:
        """The class with the highest score."""
        return _best(self.predictions)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service answers requests, and if not, why. True where it does."""

    ready: bool
    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.ready
