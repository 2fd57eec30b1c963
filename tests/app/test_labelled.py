"""Images by the folders that name their class, from a folder or an archive."""

from __future__ import annotations

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
