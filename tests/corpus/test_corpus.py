"""The corpus is what it says: enough of every format, the same each time, broken in fact; and the decoder refuses it."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from model.errors import ImageError
from model.image import FORMATS, decode
from tests.corpus import Broken, corpus, sources
from tests.corpus.damage import damaged
from tests.corpus.entrances import ENTRANCES, Ranked, Told, ask, read


@pytest.fixture(scope="module")
def files() -> list[Broken]:
    return corpus()


def test_there_are_thousands_of_every_format(files: list[Broken]) -> None:
    assert len(files) >= 2000
    counts = Counter(file.format for file in files)
    assert set(counts) == {*FORMATS, "none"}
    assert min(counts[name] for name in FORMATS) >= 150
    assert len({file.name for file in files}) == len({file.data for file in files}) == len(files)
    assert all(file.name.startswith(f"{file.format.lower()}-") for file in files)
    assert max(len(file.data) for file in files) < 5_000_000  # four thirds of it, in base64, are still within a body's limit


def test_every_kind_of_damage_is_there(files: list[Broken]) -> None:
    kinds = {file.name.split("-", 1)[1].rpartition("-")[0] for file in files}
    wanted = {"cut", "cut-edge", "flip", "spliced", "dimensions", "lengths", "nested", "loop", "tiny-chunks", "bomb-deflate"}
    wanted |= {
        "bomb-profile",
        "bomb-text",
        "bomb-codes",
        "bomb-colour",
        "polyglot-behind",
        "polyglot-before",
        "exif-repeated",
        "text",
    }
    assert wanted <= kinds


def test_the_same_seed_makes_the_same_files_and_another_makes_others() -> None:
    def some(seed: int) -> list[bytes]:
        rng = random.Random(seed)
        return [data for (_, _, data), _ in zip(damaged(sources(), rng), range(300), strict=False)]

    assert some(0) == some(0) != some(1)


def test_a_number_of_files_is_a_part_of_all(files: list[Broken]) -> None:
    assert corpus(40) == files[:40]


def test_what_damage_starts_from_is_intact() -> None:
    for source in sources():
        image, info = decode(source.data)
        assert info.format == source.format
        assert sorted(image.size) == [48, 64]


def test_most_files_are_refused_and_none_breaks_the_decoder(files: list[Broken]) -> None:
    refused = 0
    for file in files[:600]:
        try:
            decode(file.data)
        except ImageError:
            refused += 1
    assert refused > 300


def test_requests_carry_the_bytes_and_answers_are_read() -> None:
    assert [ask(name, b"abc", b"good").path.count("batch") for name in ENTRANCES] == [0, 0, 0, 0, 1]
    assert ask("raw", b"abc", b"").body == b"abc"
    assert b"\r\n\r\nabc\r\n--" in ask("multipart", b"abc", b"").body
    assert json.loads(ask("data URI", b"abc", b"").body) == {"image": "data:image/png;base64,YWJj"}
    problem = {"type": "/problems/image-undecodable", "status": 422}
    assert read("raw", 422, json.dumps(problem).encode()) == (Told(422, "image-undecodable"), None)
    good = {"status": 200, "predictions": [{"label": "cat", "score": 0.9}]}
    rows = {"results": [{"status": 422, "problem": problem}, good]}
    assert read("batch", 200, json.dumps(rows).encode()) == (Told(422, "image-undecodable"), Ranked("cat", 0.9))
    assert Ranked("cat", 0.9).agrees(Ranked("cat", 0.9001))
    assert not Ranked("cat", 0.9).agrees(Ranked("dog", 0.9))
    assert not Ranked("cat", 0.9).agrees(None)
