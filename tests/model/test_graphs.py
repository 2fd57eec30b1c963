"""`model.graphs`: whole or not at all, verified when read, remade when damaged."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

from model import graphs
from model.graphs import Graph, Key, Known
from model.types import PreprocessSpec

KEY = Key("sha256:" + "a" * 64, "b" * 64, "openvino-1.2.3", "float32")
LOGITS = np.arange(12, dtype=np.float32).reshape(4, 3)
KNOWN = Known(LOGITS, np.full((4, 2, 2), 0.5, np.float32), np.ones((3, 8), np.float32), np.zeros(3, np.float32))


def save(xml: Path) -> None:
    xml.write_text("<net/>")
    xml.with_suffix(".bin").write_bytes(b"weights")


def write(folder: Path, key: Key = KEY, save: Callable[[Path], None] = save) -> Graph:
    return graphs.write(folder, key, KNOWN, 7, 0.5, save, "made by a test")


def test_what_was_written_is_found(tmp_path: Path) -> None:
    written = write(tmp_path / "not" / "there")
    found = graphs.find(KEY, [tmp_path, tmp_path / "not" / "there"])
    assert found is not None
    for field in fields(Known):
        given = getattr(found.known, field.name)
        assert given.dtype == np.float32
        np.testing.assert_array_equal(given, getattr(KNOWN, field.name))
    assert (found.path, found.key, found.parameters, found.gmacs, found.note) == (written.path, KEY, 7, 0.5, "made by a test")
    assert found.xml.read_text() == "<net/>"
    assert found.path.name.startswith("openvino-1.2.3-float32-")
    assert [p.name for p in found.path.parent.iterdir()] == [found.path.name]  # nothing unfinished beside it


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, checkpoint="sha256:" + "c" * 64),
        replace(KEY, network="c" * 64),
        replace(KEY, engine="openvino-1.2.4"),
        replace(KEY, precision="int8"),
        replace(KEY, format=99),
    ],
)
def test_another_key_is_another_graph(tmp_path: Path, other: Key) -> None:
    write(tmp_path)
    assert other.folder != KEY.folder
    assert graphs.find(other, [tmp_path]) is None
    write(tmp_path, other)
    assert graphs.find(other, [tmp_path]) is not None
    assert graphs.find(KEY, [tmp_path]) is not None


def _cut_weights(path: Path) -> None:
    (path / "graph.bin").write_bytes(b"weight")


def _change_answers(path: Path) -> None:
    np.savez(path / "known.npz", **{**asdict(KNOWN), "logits": LOGITS + 1})


def _lose_graph(path: Path) -> None:
    (path / "graph.xml").unlink()


def _lose_card(path: Path) -> None:
    (path / "card.json").unlink()


def _break_card(path: Path) -> None:
    (path / "card.json").write_text('{"key": ')


def _empty_card(path: Path) -> None:
    (path / "card.json").write_text("[]")


def _foreign(path: Path) -> None:
    card = json.loads((path / "card.json").read_text())
    card["key"]["checkpoint"] = "sha256:" + "0" * 64
    (path / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_cut_weights, "graph.bin is damaged"),
        (_change_answers, "known.npz is damaged"),
        (_lose_graph, "graph.xml cannot be read"),
        (_lose_card, "No such file or directory"),
        (_break_card, "card.json is damaged"),
        (_empty_card, "card.json is damaged"),
        (_foreign, "it was made from something else"),
    ],
)
def test_a_damaged_or_foreign_graph_is_not_used_and_is_remade(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None], says: str
) -> None:
    harm(write(tmp_path).path)
    with caplog.at_level(logging.WARNING, "sknet.model"):
        assert graphs.find(KEY, [tmp_path]) is None
    assert says in caplog.text
    whole = write(tmp_path)
    found = graphs.find(KEY, [tmp_path])
    assert found is not None
    assert found.path == whole.path
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_graph_does_not_hide_a_whole_one(tmp_path: Path) -> None:
    _cut_weights(write(tmp_path / "first").path)
    second = write(tmp_path / "second")
    found = graphs.find(KEY, [tmp_path / "first", tmp_path / "second"])
    assert found is not None
    assert found.path == second.path


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def full(xml: Path) -> None:
        xml.write_text("<net")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, save=full)
    assert list(tmp_path.iterdir()) == []
    assert graphs.find(KEY, [tmp_path]) is None


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    names = [".unfinished-old", ".old-old", ".unfinished-new", ".old-new", "another"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "graph.bin").write_bytes(b"weights")
        if not name.endswith("new"):
            os.utime(tmp_path / name, (time.time() - 3700,) * 2)
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".unfinished-new", ".old-new", "another", KEY.folder}


def test_a_graph_is_moved_over_another(tmp_path: Path) -> None:
    write(tmp_path / "place")
    other = graphs.write(tmp_path / "trial", KEY, replace(KNOWN, logits=LOGITS + 1), 7, 0.5, save)
    moved = graphs.move(other, tmp_path / "place")
    found = graphs.find(KEY, [tmp_path / "place"])
    assert found is not None
    assert found.path == moved.path
    np.testing.assert_array_equal(found.known.logits, LOGITS + 1)
    assert [path.name for path in (tmp_path / "place").iterdir()] == [KEY.folder]


def test_several_writers_at_once_leave_one_whole_graph(tmp_path: Path) -> None:
    barrier = threading.Barrier(6)

    def slow(xml: Path) -> None:
        save(xml)
        barrier.wait(30)

    writers = [threading.Thread(target=write, args=(tmp_path, KEY, slow)) for _ in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert [p.name for p in tmp_path.iterdir()] == [KEY.folder]
    assert graphs.find(KEY, [tmp_path]) is not None


def test_the_networks_digest_takes_lists_for_tuples_and_sees_every_number() -> None:
    spec = PreprocessSpec()
    first = graphs.network_digest({"layers": [1, 2], "block": "basic"}, spec)
    assert graphs.network_digest({"block": "basic", "layers": (1, 2)}, spec) == first
    assert graphs.network_digest({"block": "basic", "layers": [1, 3]}, spec) != first
    assert graphs.network_digest({"block": "basic", "layers": [1, 2]}, replace(spec, crop_pct=0.9)) != first
