"""Logits -> predictions. This file knows nothing of networks, thresholds or wire formats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.errors import EngineError
from model.types import Label, Prediction, ScoreFunction


def _finite(logits: ArrayLike) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(logits, dtype=np.float64)
    broken = int(np.count_nonzero(~np.isfinite(values)))
    if broken:
        raise EngineError(f"{broken} of {values.size} logits are not finite")
    return values


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Probabilities over the last axis, in float64: (..., num_classes) -> (..., num_classes).

    Raises:
        EngineError: a logit is infinite or not a number.
    """
    values = _finite(logits)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))  # the largest power is 1: nothing overflows
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float64)


def scores_of(logits: ArrayLike, function: ScoreFunction = "softmax") -> NDArray[np.float64]:
    """What a function makes of logits (..., num_classes), in float64 and of the same shape.

    Raises:
        EngineError: a logit is infinite or not a number.
    """
    if function == "softmax":
        return softmax(logits)
    values = _finite(logits)
    if function == "none":
        return values
    powers = np.exp(-np.abs(values))  # never above 1: nothing overflows
    return np.asarray(np.where(values >= 0, 1.0, powers) / (1.0 + powers), dtype=np.float64)


def top_k(logits: ArrayLike, k: int, labels: Sequence[Label], function: ScoreFunction = "softmax") -> tuple[Prediction, ...]:
    """The `k` best classes of one row of logits (num_classes,), all of them where there are fewer.

    Ordered by score, highest first; equal scores by index, lowest first.

    Raises:
        EngineError: a logit is not finite, or there is not exactly one logit per label.
        ValueError: `k` is below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    shape = np.shape(logits)
    if shape != (len(labels),):
        raise EngineError(f"the logits have the shape {shape}; {len(labels)} labels need ({len(labels)},)")
    scores = scores_of(logits, function)
    order = np.argsort(-scores, kind="stable")[:k]
    return tuple(
        Prediction(index=int(i), label=labels[i].name, score=float(scores[i]), wnid=labels[i].wnid) for i in order.tolist()
    )
