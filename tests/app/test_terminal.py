"""What commands share: tables and progress."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from app.terminal import output_to, progress, say_fault, spare, table


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


def test_progress_of_what_has_no_length(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(iter(range(3000)), total=3000)) == list(range(3000))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["100 of 3000 images", "200 of 3000 images"]
    assert lines[9:] == ["1000 of 3000 images", "2000 of 3000 images", "3000 of 3000 images"]
    assert list(progress(iter("a"), total=1)) == ["a"]
    list(progress(iter(range(100))))
    assert capsys.readouterr().err == "100 images\n"


def test_a_fault_does_not_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    say_fault("a\x1b[2J.jpg", "a service\nsays \x1b]0;title\x07")
    assert capsys.readouterr().err == "a\\x1b[2J.jpg: a service says \\x1b]0;title\\x07\n"


def test_what_is_read_is_not_written_to(tmp_path: Path) -> None:
    photo, link, hard = (tmp_path / name for name in ("a.jpg", "link", "hard"))
    photo.write_bytes(b"a")
    link.symlink_to(photo)
    hard.hardlink_to(photo)
    for output in (photo, link, hard, tmp_path / "." / "a.jpg"):
        with pytest.raises(click.BadParameter, match=f"{output}: this is one of the files to be read") as found:
            spare(output, ["other", str(photo)], "--csv")
        assert found.value.param_hint == "--csv"
    for free in (None, "-", tmp_path / "new", "/dev/null"):
        spare(free, ["-", "a\0b", "/dev/null", str(photo), str(tmp_path / "new")])


def test_output_goes_where_it_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (None, "-"):
        with output_to(path) as write:
            write("a\r\n")
            write("")
        assert capsys.readouterr().out == "a\r\n"
    with output_to(str(tmp_path / "out")) as write:
        write("a\r\n\udcff")
    assert (tmp_path / "out").read_bytes() == b"a\r\n\\udcff"
    with pytest.raises(click.BadParameter, match="No such file or directory"), output_to(str(tmp_path / "none" / "out")):
        pass
