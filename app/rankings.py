"""The service's own JSON out of what the classifier found. Knows no HTTP.

Answers are serialised once, by pydantic's own serialiser: the framework would validate and encode them a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from app.classifier import Classified
from app.problems import DONE, problem_of
from app.schemas.native import BatchAnswer, BatchResult, ClassifyAnswer
from model.types import KernelAttention, ModelInfo, UnitAttention

_UNIT = tuple(field.name for field in fields(UnitAttention))


def answer_of(name: str, found: Classified) -> str:
    """`ClassifyAnswer` for one image, by a model of this name."""
    image = found.image
    answer = ClassifyAnswer.model_validate(  # the whole at once: objects made one by one are validated twice
        {
            "predictions": predictions_of(found),
            "model": _model(name, found.info),
            "image": {"width": image.width, "height": image.height, "format": image.format},
            **_attention(found.attention),
            **_comparable(found.attention),
        }
    )
    return answer.model_dump_json(exclude_unset=True)


def batch_answer_of(
    name: str, info: ModelInfo, filenames: Sequence[str | None], results: Sequence[Classified | Exception]
) -> str:
    """`BatchAnswer` for images with these file names, in their order."""
    # One by one: each holds the interpreter for a moment only.
    rows = [_result(i, filename, result) for i, (filename, result) in enumerate(zip(filenames, results, strict=True))]
    told = next((r.attention for r in results if isinstance(r, Classified)), None)
    answer = BatchAnswer.model_validate({"model": _model(name, info), **_comparable(told), "results": rows})
    # `exclude_none` would drop a prediction's `wnid: null`, which the contract shows: unset fields are left out instead.
    return answer.model_dump_json(exclude_unset=True)


def predictions_in(results: Sequence[Classified | Exception]) -> int:
    """How many there are in all."""
    return sum(len(result.predictions) for result in results if isinstance(result, Classified))


def predictions_of(found: Classified) -> list[dict[str, Any]]:
    """Each prediction as `PredictionJson` has it."""
    return [{"index": p.index, "label": p.label, "score": p.score, "wnid": p.wnid} for p in found.predictions]


def _result(index: int, filename: str | None, result: Classified | Exception) -> BatchResult:
    fields: dict[str, Any] = {"index": index, "filename": filename}
    if isinstance(result, Classified):
        fields |= {"status": DONE, "predictions": predictions_of(result), **_attention(result.attention)}
    else:
        problem = problem_of(result)
        fields |= {"status": problem.status, "problem": problem}
    return BatchResult.model_validate(fields)


def _attention(told: KernelAttention | None) -> dict[str, Any]:
    # Field by field: `dataclasses.asdict` copies everything in depth, at ten times the cost.
    return {} if told is None else {"kernel_attention": [{name: getattr(unit, name) for name in _UNIT} for unit in told.units]}


def _comparable(told: KernelAttention | None) -> dict[str, Any]:
    """Once an answer: it is a property of the network."""
    return {} if told is None else {"comparable_to_paper": told.comparable_to_paper, "comparable_reason": told.reason}


def _model(name: str, info: ModelInfo) -> dict[str, str]:
    return {"name": name, "variant": info.variant, "digest": info.digest}
