"""`model.golden`: what a card may say of its golden image, and what becomes of a checkpoint whose image comes out otherwise."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from model.card import MAX_BYTES, read_card
from model.errors import CheckpointCorrupt, CheckpointMismatch
from model.golden import MAX_CHARACTERS, golden_of, verify
from model.manager import LoadRequest, load
from model.reference import BUNDLED_FOLDER
from model.types import Label, Prediction
from tests.images import encode, solid
from tests.model.small import write

LABELS = (Label("ant"), Label("bee"))
PNG = encode(solid((8, 8)), "PNG")


def card(**changes: Any) -> dict[str, Any]:
    golden = {"image": base64.b64encode(PNG).decode(), "index": 1, "label": "bee", "score": 0.9, "tolerance": 0.05}
    return {"golden": {**golden, **changes}}


class Fixed:
    """A model that always says the same."""

    def __init__(self, index: int, score: float) -> None:
        self.first = Prediction(index, "", score)
        self.seen: list[bytes] = []

    def prepare(self, data: bytes) -> bytes:
        self.seen.append(data)
        return data

    def run(self, items: Sequence[Any]) -> Sequence[Any]:
        return items

    def top_k(self, row: Any, k: int) -> tuple[Prediction, ...]:
        assert k == 1
        return (self.first,)


def header(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims these sides."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_a_card_without_one_is_asked_nothing() -> None:
    assert golden_of({}, LABELS) is None
    assert golden_of({"golden": None}, LABELS) is None


def test_the_picture_comes_out_as_the_card_says() -> None:
    golden = golden_of(card(), LABELS)
    assert golden is not None
    for score in (0.86, 0.9, 0.94):
        model = Fixed(1, score)
        verify(golden, model)
        assert model.seen == [PNG]


@pytest.mark.parametrize(("index", "score"), [(0, 0.9), (1, 0.84), (1, 0.96)])
def test_another_answer_is_a_mismatch(index: int, score: float) -> None:
    golden = golden_of(card(), LABELS)
    assert golden is not None
    with pytest.raises(CheckpointMismatch, match=f"comes out as class {index} at {score:.3f}; its card says class 1 at 0.900"):
        verify(golden, Fixed(index, score))


def test_labels_in_another_order_are_a_mismatch_unless_they_took_the_place_of_the_cards() -> None:
    with pytest.raises(CheckpointMismatch, match="shows 'bee', but class 1 is 'ant'"):
        golden_of(card(), LABELS[::-1])
    assert golden_of(card(label="anything"), None) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"index": 2}, {"index": -1}, {"index": True}, {"index": None}, {"index": "1"},
        {"score": 0}, {"score": 1.5}, {"score": float("nan")}, {"score": "1"}, {"score": None},
        {"tolerance": 0}, {"tolerance": 0.6}, {"tolerance": True}, {"tolerance": float("inf")},
        {"image": None}, {"image": 5}, {"image": "###"}, {"image": "é"}, {"image": ""},
        {"image": base64.b64encode(encode(solid(), "JPEG")).decode()},
        {"image": base64.b64encode(PNG[:20]).decode()},
        {"image": "A" * (MAX_CHARACTERS + 4)},
        {"image": base64.b64encode(header(100_000, 100_000)).decode()},
        {"image": base64.b64encode(header(0, 8)).decode()},
        {"image": base64.b64encode(header(513, 1)).decode()},
    ],
)  # fmt: skip
def test_fields_that_make_no_sense_or_are_too_much(changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointCorrupt, match=f"golden.{next(iter(changes))}"):
        golden_of(card(**changes), LABELS)


def test_it_must_be_an_object() -> None:
    with pytest.raises(CheckpointCorrupt, match="must be a JSON object"):
        golden_of({"golden": "cat"}, LABELS)


def test_the_bundled_checkpoint_has_one_and_passes_whatever_the_settings_allow_of_requests() -> None:
    fields = json.loads((BUNDLED_FOLDER / "cifar10.json").read_text())["golden"]
    assert (fields["label"], fields["tolerance"]) == ("cat", 0.05)
    load(LoadRequest(checkpoint="bundled:cifar10", device="cpu", engine="eager", threads=1, max_pixels=1)).close()


def test_weights_of_another_network_of_the_same_shape_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, preprocess={"size": [8, 8]})
    request = LoadRequest(checkpoint=str(file), device="cpu", engine="eager", threads=1)
    model = load(request)
    (first,) = model.top_k(model.run([model.prepare(PNG)])[0], 1)
    model.close()
    golden = {**card()["golden"], "index": first.index, "label": first.label}
    write(tmp_path, preprocess={"size": [8, 8]}, golden={**golden, "score": first.score})
    load(request).close()
    write(tmp_path, preprocess={"size": [8, 8]}, golden={**golden, "score": first.score - 0.1})
    with pytest.raises(CheckpointMismatch, match="the golden image comes out"):
        load(request)
    damaged = base64.b64encode(header(8, 8)).decode()
    write(tmp_path, preprocess={"size": [8, 8]}, golden={**golden, "score": first.score, "image": damaged})
    with pytest.raises(CheckpointCorrupt, match="the golden image cannot be read"):
        load(request)


def test_a_card_beyond_any_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(CheckpointCorrupt, match="has more than"):
        read_card(path)
