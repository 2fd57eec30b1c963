"""What lies below a folder: links, circles, depth, and what cannot be listed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.folders import Fault, below, entries, files_below, is_folder, start


def found(path: str) -> list[str]:
    faults: list[Fault] = []
    names = files_below(path, faults)
    assert faults == []
    return sorted(names)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a/1", "a/b/2", ".hidden/3", ".4", "elsewhere/5"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_paths_are_spelt_as_the_folder_was() -> None:
    assert found("a") == found("a/") == ["a/1", "a/b/2"]
    assert found(".") == ["a/1", "a/b/2", "elsewhere/5"]
    assert found("./a") == ["./a/1", "./a/b/2"]


def test_links_are_followed_but_never_round(folder: Path) -> None:
    (folder / "a" / "link").symlink_to("../elsewhere")
    (folder / "a" / "b" / "up").symlink_to("..")
    (folder / "a" / "b" / "here").symlink_to(".")
    (folder / "elsewhere" / "back").symlink_to("../a")
    assert found("a") == ["a/1", "a/b/2", "a/link/5"]


def test_a_link_that_leads_nowhere_is_told_where_it_may_have_been_a_folder(folder: Path) -> None:
    for name in ("class", "self", "photo.jpg", ".lock"):
        (folder / "a" / name).symlink_to("self" if name == "self" else "gone")
    faults: list[Fault] = []
    assert sorted(files_below("a", faults)) == ["a/1", "a/b/2", "a/photo.jpg"]
    assert faults == [("a/class", "No such file or directory"), ("a/self", "Too many levels of symbolic links")]


@pytest.mark.usefixtures("folder")
def test_hidden_ones_are_listed_and_not_entered() -> None:
    assert [each.name for each in entries(start("."), [])] == [".4", ".hidden", "a", "elsewhere"]
    assert [place.path for place, _ in below(start("."), [])] == [".", "a", "a/b", "elsewhere"]


def test_what_cannot_be_listed_is_a_fault(folder: Path) -> None:
    faults: list[Fault] = []
    gone = start("a")
    (folder / "a").rename(folder / "z")
    assert entries(gone, faults) == []
    assert faults == [("a", "No such file or directory")]


def test_only_a_folder_is_begun_with(folder: Path) -> None:
    with pytest.raises(NotADirectoryError):
        start(str(folder / "a" / "1"))
    with pytest.raises(FileNotFoundError):
        start(str(folder / "gone"))
    assert is_folder("a")
    assert not is_folder("a/1")
    assert not is_folder("x" * 300)  # which the system refuses to look for


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """In a folder with more in each other than Python may call within a call; taken away again, as pytest could not."""
    monkeypatch.chdir(tmp_path)
    made = 0
    try:
        for _ in range(1500):
            Path("d").mkdir()
            os.chdir("d")
            made += 1
        Path("1").touch()
        monkeypatch.chdir(tmp_path)
        yield made
    finally:
        os.chdir(tmp_path / "/".join(["d"] * made))
        Path("1").unlink(missing_ok=True)
        for _ in range(made):
            os.chdir("..")
            Path("d").rmdir()


def test_depth_has_no_end(deep: int) -> None:
    assert found(".") == ["d/" * deep + "1"]
