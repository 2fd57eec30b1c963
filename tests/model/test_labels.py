"""Labels: the ImageNet-1k table, label files and the forms that configurations use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from timm.data.imagenet_info import ImageNetInfo

from model import labels as module
from model.errors import CheckpointCorrupt, CheckpointNotFound
from model.labels import imagenet1k, parse_labels, read_labels
from model.types import Label


def test_imagenet1k_is_timms_table_in_the_order_of_sorted_wordnet_ids() -> None:
    theirs: Any = ImageNetInfo("imagenet-1k")
    ours = imagenet1k()
    wnids = [label.wnid or "" for label in ours]
    assert len(ours) == 1000
    assert wnids == sorted(set(wnids)) == theirs.label_names()
    assert [label.name for label in ours] == [theirs.label_name_to_description(w, detailed=False) for w in wnids]


def test_imagenet1k_names_are_not_unique_but_ids_are() -> None:
    crane, other = imagenet1k()[134], imagenet1k()[517]
    assert crane.name == other.name == "crane"
    assert (crane.wnid, other.wnid) == ("n02012849", "n03126707")
    assert [imagenet1k()[i].name for i in (638, 639)] == ["maillot", "maillot, tank suit"]


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (["ant", "bee"], (Label("ant"), Label("bee"))),
        ({"1": "bee", "0": "ant"}, (Label("ant"), Label("bee"))),
        ([{"name": "ant", "wnid": "n02219486"}, {"name": "bee"}], (Label("ant", "n02219486"), Label("bee"))),
        (["n01440764"], (Label("tench, Tinca tinca", "n01440764"),)),
        (["n99999999"], (Label("n99999999", "n99999999"),)),  # outside ImageNet-1k, and nobody describes it
        (["ant", "ant"], (Label("ant"), Label("ant"))),
    ],
)
def test_parse_labels(value: object, labels: tuple[Label, ...]) -> None:
    assert parse_labels(value) == labels


def test_a_thousand_ids_are_named_from_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    wnids = [label.wnid for label in imagenet1k()]
    asked = []

    def table() -> tuple[Label, ...]:
        asked.append("once")
        return imagenet1k()

    monkeypatch.setattr(module, "imagenet1k", table)
    assert parse_labels(wnids) == imagenet1k()
    assert len(asked) <= 1


def test_descriptions_name_wordnet_ids() -> None:
    assert parse_labels(["n01440764", "bee"], {"n01440764": "my fish", "bee": "an insect"}) == (
        Label("my fish", "n01440764"),
        Label("bee"),
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"0": "ant", "2": "cat"}, "none for class 1"),
        ({"ant": 0}, "none for class 0"),
        (["ant", ""], "class 1"),
        (["ant", 7], "class 1 is 7"),
        ([{"name": "ant", "wnid": 3}], "class 0"),
        ([], "empty"),
        ("ant", "not str"),
        (None, "not NoneType"),
    ],
)
def test_parse_labels_refuses(value: object, says: str) -> None:
    with pytest.raises(CheckpointCorrupt, match=says):
        parse_labels(value)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("ant\nbee\n", (Label("ant"), Label("bee"))),
        ("\ufeffant\r\nbee\r\n\r\n", (Label("ant"), Label("bee"))),
        ("äpfel, grün\nbee", (Label("äpfel, grün"), Label("bee"))),
        (json.dumps(["ant", "bee"]), (Label("ant"), Label("bee"))),
        (json.dumps({"1": "bee", "0": "ant"}), (Label("ant"), Label("bee"))),
        ("n02219486\tant, emmet\nn02206856\tbee\n", (Label("ant, emmet", "n02219486"), Label("bee", "n02206856"))),
        ("n01440764\n", (Label("tench, Tinca tinca", "n01440764"),)),
    ],
)
def test_read_labels(tmp_path: Path, text: str, labels: tuple[Label, ...]) -> None:
    file = tmp_path / "labels"
    file.write_bytes(text.encode())
    assert read_labels(file) == labels


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"ant\n\nbee\n", "class 1"),  # a gap would shift every name after it
        (b"", "empty"),
        (b"[1, 2", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_read_labels_refuses_and_names_the_file(tmp_path: Path, data: bytes, says: str) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes(data)
    with pytest.raises(CheckpointCorrupt, match=says) as caught:
        read_labels(file)
    assert str(file) in str(caught.value)


def test_a_labels_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"labels\.txt cannot be read"):
        read_labels(tmp_path / "labels.txt")
