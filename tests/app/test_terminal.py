"""What commands share: tables and progress."""

from __future__ import annotations

import sys

import pytest

from app.terminal import progress, table


def test_table_aligns_its_columns() -> None:
    assert table([("a", "bb"), ("ccc", "d")], indent=1) == " a    bb\n ccc  d"
    assert table([]) == "(none)"


def test_progress_is_a_line_every_hundred(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(250), "reading")) == list(range(250))
    assert capsys.readouterr().err.splitlines() == ["reading: 100 of 250 images", "reading: 200 of 250 images"]
    assert list(progress(range(100))) == list(range(100))
    assert capsys.readouterr().err == "100 of 100 images\n"


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(3), "reading")) == [0, 1, 2]
    assert "reading: 100%" in capsys.readouterr().err
    assert list(progress(["one"])) == ["one"]
    assert capsys.readouterr().err == ""
