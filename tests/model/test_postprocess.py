"""Logits -> predictions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import EngineError
from model.postprocess import scores_of, softmax, top_k
from model.types import Label, Prediction, ScoreFunction

LABELS = tuple(Label(name, wnid) for name, wnid in (("crane", "n02012849"), ("cat", None), ("crane", "n03126707"), ("dog", None)))


def test_softmax_equals_the_definition() -> None:
    expected = [math.exp(v) / sum(map(math.exp, (1.0, 2.0, 3.0))) for v in (1.0, 2.0, 3.0)]
    assert softmax([1.0, 2.0, 3.0]) == pytest.approx(expected, abs=1e-15)


def test_softmax_works_along_the_last_axis_in_float64() -> None:
    rows = np.array([[0.0, math.log(3.0)], [math.log(4.0), 0.0]], dtype=np.float32)
    assert softmax(rows).dtype == np.float64
    np.testing.assert_allclose(softmax(rows), [[0.25, 0.75], [0.8, 0.2]], atol=1e-7)


def test_softmax_of_huge_logits_does_not_overflow() -> None:
    assert softmax([1e30, 1e30, -1e30]).tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_the_engines_fault(broken: float) -> None:
    with pytest.raises(EngineError, match="1 of 4 logits are not finite"):
        top_k(np.array([0.0, broken, 1.0, 2.0]), 1, LABELS)


def test_top_k_carries_index_label_score_and_wnid() -> None:
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32))
    best, second = top_k(logits, 2, LABELS)
    assert (best.index, best.label, best.wnid) == (3, "dog", None)
    assert second == Prediction(2, "crane", second.score, "n03126707")
    assert (best.score, second.score) == pytest.approx((0.4, 0.3), abs=1e-6)
    assert type(best.index) is int
    assert type(best.score) is float  # numpy scalars would not go into JSON


def test_equal_scores_come_in_the_order_of_the_classes() -> None:
    assert [p.index for p in top_k(np.array([1.0, 5.0, 1.0, 5.0]), 4, LABELS)] == [1, 3, 0, 2]


def test_more_than_there_are_gives_all() -> None:
    assert sorted(p.index for p in top_k(np.zeros(4), 10**9, LABELS)) == [0, 1, 2, 3]


@pytest.mark.parametrize("k", [0, -1])
def test_fewer_than_one_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}"):
        top_k(np.zeros(4), k, LABELS)


@pytest.mark.parametrize("shape", [(3,), (5,), (1, 4), ()])
def test_logits_must_fit_the_labels(shape: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match="4 labels need"):
        top_k(np.zeros(shape), 1, LABELS)


def test_other_functions_than_softmax() -> None:
    logits = np.array([-2.0, 0.0, 3.0, -800.0], np.float32)
    assert scores_of(logits, "none").tolist() == logits.tolist()
    assert scores_of(logits, "sigmoid") == pytest.approx([1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-3)), 0.0])
    assert scores_of(-logits, "sigmoid") == pytest.approx(1 - scores_of(logits, "sigmoid"))
    assert scores_of(logits).tolist() == softmax(logits).tolist()
    assert [(p.index, p.score) for p in top_k(logits, 2, LABELS, "none")] == [(2, 3.0), (1, 0.0)]
    assert [p.index for p in top_k(logits, 4, LABELS, "sigmoid")] == [2, 1, 0, 3]


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_no_function_takes_what_is_not_finite(function: ScoreFunction, broken: float) -> None:
    with pytest.raises(EngineError, match="1 of 4 logits"):
        scores_of([0.0, broken, 1.0, 2.0], function)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_a_ranking_is_sorted_and_never_sums_above_one(logits: list[float], k: int) -> None:
    labels = [Label(str(i)) for i in range(len(logits))]
    ranking = top_k(np.array(logits, dtype=np.float32), k, labels)
    keys = [(-p.score, p.index) for p in ranking]
    assert keys == sorted(keys)
    assert len(ranking) == min(k, len(logits))
    assert sum(p.score for p in ranking) <= 1 + 1e-12
    assert logits[ranking[0].index] == max(logits) or ranking[0].score == pytest.approx(max(softmax(logits)))
    assert all(p.label == str(p.index) for p in ranking)
