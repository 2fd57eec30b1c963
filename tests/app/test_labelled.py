"""Images by the folders that name their class, from a folder or an archive."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from app import image_files
from app import labelled as module
from app.image_files import Unreadable
from app.labelled import labelled
from app.paths import NoImages

FILES = ("cat/10.jpg", "cat/2.jpg", "dog/deep/er/1.png", "dog/readme.txt", ".git/x.jpg", "loose.jpg", "classes.tsv")
FOUND = {"cat": ["cat/2.jpg", "cat/10.jpg"], "dog": ["dog/deep/er/1.png"]}


def in_folder(tmp_path: Path, *names: str, below: str = "") -> Path:
    for name in names:
        path = tmp_path / "set" / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "set"


def in_archive(tmp_path: Path, *names: str, below: str = "") -> Path:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in names:
            zipped.writestr(below + name, name.encode())
    return path


def test_a_folder(tmp_path: Path) -> None:
    root = in_folder(tmp_path, *FILES)
    for spelt in (str(root), f"{root}/"):
        found = labelled(spelt)
        assert {name: [s.name for s in inside] for name, inside in found.folders.items()} == {
            name: [f"{root}/{path}" for path in inside] for name, inside in FOUND.items()
        }
        assert found.folders["cat"][0].read() == b"cat/2.jpg"
        assert found.outside == ["loose.jpg"]


def test_an_archive(tmp_path: Path) -> None:
    found = labelled(str(in_archive(tmp_path, *FILES, "__MACOSX/cat/2.jpg")))
    assert {name: [s.name for s in inside] for name, inside in found.folders.items()} == FOUND
    assert found.folders["dog"][0].read() == b"dog/deep/er/1.png"
    assert found.outside == ["loose.jpg"]


@pytest.mark.parametrize("make", [in_folder, in_archive])
def test_a_folder_of_nothing_but_one_folder_is_stepped_into(tmp_path: Path, make: object) -> None:
    assert callable(make)
    path = make(tmp_path, "cat/1.jpg", "dog/1.jpg", below="train/")
    assert list(labelled(str(path)).folders) == ["cat", "dog"]


def test_a_single_class_is_one(tmp_path: Path) -> None:
    assert list(labelled(str(in_folder(tmp_path, "cat/1.jpg"))).folders) == ["cat"]


def test_what_holds_no_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_bytes(b"PK no archive")
    (tmp_path / "empty").mkdir()
    for name, says in (
        *(("gone", "there is no"), ("no.zip", "no zip archive"), ("empty", "has no images in folders named by class")),
        ("set", "has no images in folders"),
    ):
        in_folder(tmp_path, "loose.jpg", "cat/notes.txt")
        with pytest.raises(NoImages, match=says):
            labelled(str(tmp_path / name))


def test_damaged_encrypted_and_oversized_members_are_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_archive(tmp_path, "cat/1.jpg", "cat/2.jpg", "cat/3.jpg")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as zipped:
        first, second, _ = zipped.infolist()
    data[first.header_offset + 30 + len(first.filename)] ^= 0xFF  # the first byte of its pixels
    for at in (second.header_offset + 6, data.find(b"PK\1\2", data.find(b"PK\1\2") + 4) + 8):
        data[at] |= 1  # the flag of encryption, in both headers
    path.write_bytes(data)
    monkeypatch.setattr(module, "MAX_BYTES", 4)
    monkeypatch.setattr(image_files, "MAX_BYTES", 4)
    sources = labelled(str(path)).folders["cat"]
    for source, says in zip(sources, ("damaged in the archive", "encrypted", "larger than"), strict=True):
        with pytest.raises(Unreadable, match=says):
            source.read()


def test_a_class_folder_that_is_a_link_counts(tmp_path: Path) -> None:
    root = in_folder(tmp_path, "cat/1.jpg")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "2.jpg").touch()
    (root / "dog").symlink_to(tmp_path / "pool")
    (root / "elk").symlink_to(tmp_path / "gone")
    found = labelled(str(root))
    assert {name: [s.name for s in inside] for name, inside in found.folders.items()} == {
        "cat": [f"{root}/cat/1.jpg"],
        "dog": [f"{root}/dog/2.jpg"],
    }
    assert found.faults == [(f"{root}/elk", "No such file or directory")]


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path: Path) -> None:
    root = in_folder(tmp_path, "cat/1.jpg")
    os.mkfifo(root / "cat" / "2.jpg")
    with pytest.raises(Unreadable, match="a pipe"):
        labelled(str(root)).folders["cat"][1].read()


def test_a_path_that_the_system_refuses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoImages, match="File name too long"):
        labelled(str(tmp_path / ("a" * 300)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    path = in_archive(tmp_path, "cat/1.jpg", "cat/2.jpg")
    with zipfile.ZipFile(path, "a") as zipped:
        zipped.writestr("cat/1.jpg", b"the later one")
    sources = labelled(str(path)).folders["cat"]
    assert [(s.name, s.read()) for s in sources] == [("cat/1.jpg", b"the later one"), ("cat/2.jpg", b"cat/2.jpg")]


def test_a_number_of_any_length_may_be_a_members_name(tmp_path: Path) -> None:
    names = [f"cat/{'9' * 5000}.jpg", "cat/10.jpg"]
    assert [s.name for s in labelled(str(in_archive(tmp_path, *names))).folders["cat"]] == names[::-1]


def test_a_damaged_member_in_lzma_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as zipped:
        zipped.writestr("cat/1.jpg", bytes(range(256)) * 40)
        start = zipped.infolist()[0].header_offset + 30 + len("cat/1.jpg")
    data = bytearray(path.read_bytes())
    data[start + 9 : start + 29] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(Unreadable, match="damaged in the archive"):
        labelled(str(path)).folders["cat"][0].read()


def test_a_folder_that_was_stepped_into_may_have_been_the_class(tmp_path: Path) -> None:
    found = labelled(str(in_folder(tmp_path, "cat/day1/1.jpg", "cat/day2/2.jpg", below="all/")))
    assert found.stepped == ["all", "cat"]
    assert found.by({"dog"}) == found.folders
    (name, inside), *rest = found.by({"cat", "dog"}).items()
    assert (name, len(inside), rest) == ("cat", 2, [])
    for classes in ({"cat", "day2"}, {"all", "cat"}):
        with pytest.raises(NoImages, match="are both named by a class"):
            found.by(classes)
