"""Which images a command line names, and in what order."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from app.image_files import read_file, read_stdin
from app.paths import NoImages, counting, find, listed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        *("img10.jpg", "img2.jpg", "Img1.PNG", "notes.txt", ".hidden.jpg", "no_suffix"),
        *("b/2.jpg", "b/10.jpg", "b/c/deep.webp", ".git/x.jpg", "a[1].jpg"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


IN_ORDER = ["a[1].jpg", "b/2.jpg", "b/10.jpg", "b/c/deep.webp", "Img1.PNG", "img2.jpg", "img10.jpg"]


def names(*paths: str) -> list[str]:
    found = find(paths)
    assert found.faults == []
    return [source.name for source in found.sources]


def test_a_folder_gives_its_images_as_people_count(folder: Path) -> None:
    assert names(".") == IN_ORDER
    assert names("b/") == names("b") == ["b/2.jpg", "b/10.jpg", "b/c/deep.webp"]
    assert names(str(folder)) == [f"{folder}/{name}" for name in IN_ORDER]


@pytest.mark.usefixtures("folder")
def test_what_is_named_outright_is_taken_as_it_is() -> None:
    assert names("notes.txt", ".hidden.jpg", "img2.jpg", "img2.jpg", "a[1].jpg") == [
        *("notes.txt", ".hidden.jpg", "img2.jpg", "img2.jpg", "a[1].jpg")
    ]
    assert find(["img2.jpg"]).sources[0].read() == b"img2.jpg"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jpg", ["a[1].jpg", "img2.jpg", "img10.jpg"]),
        ("img?.jpg", ["img2.jpg"]),
        ("**/*.jpg", ["a[1].jpg", "b/2.jpg", "b/10.jpg", "img2.jpg", "img10.jpg"]),
        ("**", IN_ORDER),  # each once, though a folder and what is in it both match
        ("b*", ["b/2.jpg", "b/10.jpg", "b/c/deep.webp"]),
        ("n*", None),
    ],
)
def test_patterns_that_the_shell_left(pattern: str, found: list[str] | None) -> None:
    if found is None:
        with pytest.raises(NoImages, match=r"no image matches n\*"):
            find([pattern])
    else:
        assert names(pattern) == found


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("path", "says"),
    [("gone.jpg", "there is no gone.jpg"), ("empty", "no images in empty"), ("", "a path is empty"), ("x/*", "matches")],
)
def test_what_leads_to_no_image_is_refused(path: str, says: str) -> None:
    with pytest.raises(NoImages, match=says):
        find(["img2.jpg", path])


def test_standard_input_is_one_image() -> None:
    assert [source.reader for source in find(["-"]).sources] == [read_stdin]
    with pytest.raises(NoImages, match="once"):
        find(["-", "-"])


def test_a_folder_that_cannot_be_listed_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # a test that runs as root may list everything
    found = find([str(folder)])
    assert found.faults == [(f"{folder}/b", "Permission denied")]
    assert len(found.sources) == 4


def test_links_in_a_circle_end(folder: Path) -> None:
    (folder / "b" / "up").symlink_to(folder)
    assert names(".") == IN_ORDER


def test_lists_of_paths() -> None:
    assert [s.name for s in listed(io.BytesIO(b"a.jpg\r\nb c.jpg\n\n\xff.jpg"), nul=False)] == ["a.jpg", "b c.jpg", "\udcff.jpg"]
    assert [s.name for s in listed(io.BytesIO(b"a\nb.jpg\0c.jpg\0"), nul=True)] == ["a\nb.jpg", "c.jpg"]
    assert [s.reader for s in listed(io.BytesIO(b"a"), nul=False)] == [read_file]
    assert listed(io.BytesIO(b"\n\n"), nul=False) == []


def test_counting_never_compares_text_with_numbers() -> None:
    mixed = ["1", "a", "a1", "1a", "a/1", "1/a", "", "a1b2", "10", "01", "A", "\u0661"]
    turned = list(reversed(mixed))
    assert sorted(mixed, key=counting) == sorted(turned, key=counting)
    assert sorted(["x10", "x9", "x09"], key=counting) == ["x09", "x9", "x10"]
