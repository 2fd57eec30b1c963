"""Answers as a table, as JSON lines and as CSV."""

from __future__ import annotations

import csv
import io
import json

from app.answers import Answer
from app.tables import CSV_FIELDS, Csv, JsonLines, Table, columns_of, shortened, shown
from model.types import ImageInfo, KernelAttention, Prediction, UnitAttention

CAT = Prediction(281, "tabby, tabby cat", 0.75, "n02123045")
DOG = Prediction(5, 'a "dog"', 0.125)
GOOD = Answer("a,b.jpg", (CAT, DOG), ImageInfo(40, 30, "JPEG"))
BAD = Answer("bad\n.jpg", error="no image")


def test_table_aligns_files_labels_and_scores() -> None:
    table = Table(["a,b.jpg", "longer name.jpg"], 0.0, None)
    assert table.head() + table.text(GOOD) == (
        'a,b.jpg          tabby, tabby cat          0.7500\n                 a "dog"                   0.1250\n'
    )
    assert table.text(BAD) == ""


def test_table_fits_the_terminal() -> None:
    name = "a/very/long/path/of/folders/" * 4 + "photo.jpg"
    long_label = Prediction(1, "label " * 30, 0.5)
    for width in (60, 80):
        table = Table([name], 0.0, width)
        lines = table.text(Answer(name, (CAT, long_label))).splitlines()
        assert all(len(line) <= width for line in lines)
        assert "photo.jpg  tabby" in lines[0]
        assert lines[0].startswith("\N{HORIZONTAL ELLIPSIS}")
        assert "\N{HORIZONTAL ELLIPSIS}" in lines[1]
        assert lines[0].endswith("0.7500")


def test_min_score_leaves_classes_out_but_no_image() -> None:
    assert Table(["a,b.jpg"], 0.5, None).text(GOOD).count("\n") == 1
    assert Table(["a,b.jpg"], 0.9, None).text(GOOD) == "a,b.jpg  -\n"
    assert json.loads(JsonLines(0.9).text(GOOD))["predictions"] == []
    assert Csv(0.9).text(GOOD) == '"a,b.jpg",,,,,,\r\n'


def test_what_could_move_the_cursor_is_shown_as_escapes() -> None:
    assert shown("a\x1b[2Jb\n\udcff\u202e") == "a\\x1b[2Jb\\n\\udcff\\u202e"
    assert shown("Größe 鶴") == "Größe 鶴"
    assert "\x1b" not in Table(["\x1b[2J"], 0.0, None).text(Answer("\x1b[2J", (Prediction(0, "\x1b]0;x\x07", 1.0),)))


def test_wide_letters_take_two_columns() -> None:
    assert columns_of("鶴.jpg") == 6
    assert shortened("鶴鶴鶴鶴", 5) == "鶴鶴\N{HORIZONTAL ELLIPSIS}"
    assert shortened("鶴鶴鶴鶴", 5, front=True) == "\N{HORIZONTAL ELLIPSIS}鶴鶴"
    lines = Table(["鶴.jpg", "ab.jpg"], 0.0, None)
    assert {columns_of(lines.text(Answer(name, (CAT,)))) for name in ("鶴.jpg", "ab.jpg")} == {6 + 2 + 24 + 2 + 6 + 1}


def test_json_is_an_object_a_line() -> None:
    form = JsonLines(0.0)
    good, bad = (json.loads(form.text(answer)) for answer in (GOOD, BAD))
    assert all(form.text(answer).count("\n") == 1 for answer in (GOOD, BAD))
    assert good == {
        "file": "a,b.jpg",
        "predictions": [
            {"index": 281, "label": "tabby, tabby cat", "score": 0.75, "wnid": "n02123045"},
            {"index": 5, "label": 'a "dog"', "score": 0.125, "wnid": None},
        ],
        "image": {"width": 40, "height": 30, "format": "JPEG"},
    }
    assert bad == {"file": "bad\n.jpg", "error": "no image"}


def test_json_holds_kernel_attention_as_the_service_tells_it() -> None:
    unit = UnitAttention("SK_2_1", "layer1.0.conv1", (3, 5), 64, (0.25, 0.75), 0.5, 4.5)
    told = Answer("a", (CAT,), attention=KernelAttention((unit,), True, "why")).document()
    assert told["comparable_to_paper"] is True
    assert told["comparable_reason"] == "why"
    assert json.loads(json.dumps(told))["kernel_attention"] == [
        {
            "unit": "SK_2_1", "module": "layer1.0.conv1", "kernel_sizes": [3, 5], "channels": 64,
            "mean_attention": [0.25, 0.75], "attention_difference": 0.5, "mean_kernel_size": 4.5,
        }
    ]  # fmt: skip


def test_csv_is_read_back() -> None:
    form = Csv(0.0)
    text = form.head() + form.text(GOOD) + form.text(BAD)
    assert text.endswith("\r\n")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert tuple(rows[0]) == CSV_FIELDS
    assert [row["rank"] for row in rows] == ["1", "2", ""]
    assert (rows[0]["file"], rows[0]["label"], rows[0]["wnid"], float(rows[0]["score"])) == ("a,b.jpg", CAT.label, CAT.wnid, 0.75)
    assert (rows[1]["label"], rows[1]["wnid"]) == (DOG.label, "")
    assert (rows[2]["file"], rows[2]["error"]) == ("bad\n.jpg", "no image")
