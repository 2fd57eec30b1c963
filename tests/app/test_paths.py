"""Which images a command line names, and in what order."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from app import paths as module
from app.image_files import Unreadable, read_file, read_stdin
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
        ("b*/", ["b/2.jpg", "b/10.jpg", "b/c/deep.webp"]),
        ("b/**", ["b/2.jpg", "b/10.jpg", "b/c/deep.webp"]),
        ("**/*", IN_ORDER),
        ("**/c/**/*.webp", ["b/c/deep.webp"]),
        ("./b/[0-9].jpg", ["./b/2.jpg"]),
        (".g*/*.jpg", [".git/x.jpg"]),
        ("notes.txt/*", None),
        ("*/*/", ["b/c/deep.webp"]),
        ("n*", None),
    ],
)
def test_patterns_that_the_shell_left(pattern: str, found: list[str] | None) -> None:
    if found is None:
        with pytest.raises(NoImages, match="no image matches n"):
            find([pattern])
    else:
        assert names(pattern) == found


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("path", "says"),
    [
        *(("gone.jpg", "there is no gone.jpg"), ("empty", "no images in empty"), ("", "a path is empty"), ("x/*", "matches")),
        ("a" * 300 + ".jpg", "a.jpg: File name too long"),
        ("[a]" * 300 + ".jpg", "no image matches"),
    ],
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


def test_a_linked_folder_counts_as_one(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "1.jpg").touch()
    (folder / "link").symlink_to(other)
    assert names(".") == [*IN_ORDER, "link/1.jpg"]
    assert names("**/1.jpg") == ["link/1.jpg"]


@pytest.mark.parametrize("pattern", ["**/*", "**", "*", "**/*.*", "**/**/*.*"])
def test_a_pattern_does_not_follow_links_round(folder: Path, pattern: str) -> None:
    for link in ("l", "m", "b/l", "b/m"):
        (folder / link).symlink_to(folder)
    assert names(pattern) == IN_ORDER


def test_each_path_answers_for_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        if path == "b":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert find(["b", "b/*", "**/*.png"]).faults == [("b", "Permission denied")] * 3  # though ** came by it twice
    with pytest.raises(NoImages, match="no images in empty"):
        find(["b", "empty"])


@pytest.mark.parametrize("path", ["b", "b/*.jpg"])
def test_a_pipe_that_nobody_named_is_not_waited_for(folder: Path, path: str) -> None:
    os.mkfifo(folder / "b" / "1.jpg")
    first = find([path]).sources[0]
    assert first.name == "b/1.jpg"
    with pytest.raises(Unreadable, match="a pipe or a device"):
        first.read()
    assert find(["b/1.jpg"]).sources[0].reader is read_file  # which waits, as it was asked to


def test_a_list_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LIST_BYTES", 2_000_000)
    assert len(listed(io.BytesIO(b"\n" * 1_999_994 + b"1.jpg\n"), nul=False)) == 1
    with pytest.raises(NoImages, match="larger than 2 MB"):
        listed(io.BytesIO(b"\n" * 1_999_994 + b"1.jpg\n" + b"1"), nul=False)


def test_numbers_of_any_length_are_counted() -> None:
    longer, long = "9" * 5000 + ".jpg", "8" * 5000 + ".jpg"
    assert sorted([longer, "1" + long, long, "7.jpg", "007.jpg"], key=counting) == ["007.jpg", "7.jpg", long, longer, "1" + long]
