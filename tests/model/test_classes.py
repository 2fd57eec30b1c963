"""Names of classes: every way to say which one is meant, and what is refused."""

from __future__ import annotations

import pytest

from model.classes import AmbiguousClass, Classes, UnknownClass
from model.labels import imagenet1k
from model.types import Label

IMAGENET = Classes(imagenet1k())


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("n01443537", 1),  # WordNet id
        ("N01443537", 1),
        ("goldfish, Carassius auratus", 1),  # the label
        ("goldfish", 1),  # one of its words
        ("GOLDFISH", 1),
        ("great_white-shark", 2),
        ("  great white  shark ", 2),
        ("man_eater", 2),
        ("tabby,_tabby_cat", 281),
        ("999", 999),
        ("0007", 7),
        ("maillot", 638),  # the whole label of this one, a word of the next
        ("tank suit", 639),
    ],
)
def test_a_class_is_found_by_any_of_its_names(name: str, index: int) -> None:
    assert IMAGENET.index_of(name) == index


def test_every_label_but_cranes_and_every_id_finds_its_class() -> None:
    for index, label in enumerate(imagenet1k()):
        assert label.wnid is not None
        assert IMAGENET.index_of(label.wnid) == index
        if label.name != "crane":
            assert IMAGENET.index_of(label.name) == index


def test_a_name_of_several_classes_is_refused_with_their_indices() -> None:
    with pytest.raises(AmbiguousClass, match=r"134 \(n02012849\) and 517 \(n03126707\)") as caught:
        IMAGENET.index_of("Crane")
    assert caught.value.indices == (134, 517)
    with pytest.raises(AmbiguousClass, match="give the index instead"):
        Classes([Label("a"), Label("a")]).index_of("a")


@pytest.mark.parametrize("name", ["1000", "-1", "n99999999", "", "\u0661", "9" * 5000])
def test_what_is_no_class_is_refused(name: str) -> None:
    with pytest.raises(UnknownClass):
        IMAGENET.index_of(name)


def test_the_nearest_labels_are_named() -> None:
    with pytest.raises(UnknownClass, match="did you mean 'goldfish, Carassius auratus'") as caught:
        IMAGENET.index_of("golfish")
    assert caught.value.nearest[0] == "goldfish, Carassius auratus"
    assert len(caught.value.nearest) <= 3
    with pytest.raises(UnknownClass, match="none is called anything like it"):
        IMAGENET.index_of("qqqqqqqq")


def test_labels_that_are_numbers_come_before_indices() -> None:
    digits = Classes([Label(str(9 - i)) for i in range(10)])
    assert digits.index_of("3") == 6
    assert Classes([Label("a"), Label("b")]).index_of("1") == 1


def test_case_counts_where_only_it_tells_labels_apart() -> None:
    classes = Classes([Label("US"), Label("us")])
    assert (classes.index_of("US"), classes.index_of("us")) == (0, 1)
    with pytest.raises(AmbiguousClass):
        classes.index_of("Us")


def test_a_name_of_one_class_or_several_is_in() -> None:
    assert "goldfish" in IMAGENET
    assert "crane" in IMAGENET
    assert "12" in IMAGENET
    assert "golfish" not in IMAGENET
    assert 12 not in IMAGENET
