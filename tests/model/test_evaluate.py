"""Counts of rankings against classes, and the intervals around them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.evaluate import ClassShare, Evaluation, Share


def test_wilson_interval_is_the_published_one() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611), (1, 29): (0.0061, 0.1718)}
    for (hits, count), bounds in published.items():
        assert Share(hits, count).bounds == pytest.approx(bounds, abs=6e-5)


@given(st.integers(0, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share(pair: tuple[int, int]) -> None:
    share = Share(*pair)
    low, high = share.bounds
    assert 0 <= low <= share.value <= high <= 1 or share.count == 0
    mirrored = Share(share.count - share.hits, share.count).bounds
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))


def test_nothing_counted_says_nothing() -> None:
    empty = Evaluation(10)
    assert (empty.first, empty.first.value, empty.first.bounds) == (Share(0, 0), 0.0, (0.0, 1.0))
    assert empty.classes == ()


def test_counts_by_class() -> None:
    counts = Evaluation(6, k=2)
    for true, ranking in ((0, (0, 1)), (0, (1, 0)), (0, (2, 1)), (0, (1, 3)), (3, (5, 4, 3)), (4, (4, 0))):
        counts.add(true, ranking)
    assert counts.first == Share(2, 6)
    assert counts.among == Share(3, 6)  # the third of class 3 is beyond k
    assert counts.classes == (
        ClassShare(0, Share(1, 4), Share(2, 4), (1, 2)),
        ClassShare(3, Share(0, 1), Share(0, 1), (5, 1)),
        ClassShare(4, Share(1, 1), Share(1, 1), None),
    )
    classes, table = counts.confusion()
    assert classes == (0, 3, 4)
    np.testing.assert_array_equal(table, [[1, 0, 0, 3], [0, 0, 0, 1], [0, 0, 1, 0]])


def test_of_mistakes_that_are_as_many_the_lowest_index_is_named() -> None:
    counts = Evaluation(5)
    counts.add(0, [3])
    counts.add(0, [2])
    assert counts.classes[0].taken_for == (2, 1)


def test_k_is_no_more_than_the_classes() -> None:
    assert Evaluation(3).k == 3
    assert Evaluation(1000).k == 5


def test_many_classes_take_no_table_of_all_pairs() -> None:
    counts = Evaluation(10_000_000)
    counts.add(9_999_999, [0])
    assert counts.confusion()[1].tolist() == [[0, 1]]


@pytest.mark.parametrize(("true", "ranking"), [(0, []), (10, [0]), (0, [10]), (-1, [0]), (0, [-1])])
def test_what_cannot_be_counted_is_refused(true: int, ranking: list[int]) -> None:
    with pytest.raises(ValueError, match="from 0 to 9"):
        Evaluation(10).add(true, ranking)


@given(st.lists(st.tuples(st.integers(0, 6), st.permutations(range(7))), min_size=1, max_size=60))
def test_the_counts_are_those_of_a_direct_computation(images: list[tuple[int, list[int]]]) -> None:
    counts = Evaluation(7)
    for true, ranking in images:
        counts.add(true, ranking)
    assert counts.first == Share(sum(true == ranking[0] for true, ranking in images), len(images))
    assert counts.among == Share(sum(true in ranking[:5] for true, ranking in images), len(images))
    assert counts.confusion()[1].sum() == len(images)
    assert sum(each.first.count for each in counts.classes) == len(images)
