"""Bytes of images, bounded, from whatever holds them."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest

from app import image_files
from app.image_files import Source, Unreadable, at_hand, is_image, read_file, read_found, read_stdin


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"pixels" * 100_000)
    assert Source(str(path), read_file).read() == b"pixels" * 100_000


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(b"ab" * 700_000))
    writer.start()
    assert read_file(str(path)) == b"ab" * 700_000
    writer.join(10)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    for name, why in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory"), ("a\0b", "no file can")):
        with pytest.raises(Unreadable, match=why):
            read_file(str(name))


def test_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_BYTES", 3_000_000)
    path = tmp_path / "film"
    with path.open("wb") as file:
        file.truncate(3_000_001)
    with pytest.raises(Unreadable, match="larger than 3 MB"):
        read_file(str(path))
    with pytest.raises(Unreadable, match="larger than 3 MB"):
        read_file("/dev/zero")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xd8image")))
    assert Source("-", read_stdin).read() == b"\xff\xd8image"


def test_suffixes_of_images() -> None:
    assert all(is_image(name) for name in ("a.jpg", "a.JPEG", "x/y.b.Webp", "a.tif", "a.heic", "a.avif"))
    assert not any(is_image(name) for name in ("a.txt", "jpg", ".jpg", "a.jpg/b", "a.jpg.zip", ""))


def test_what_nobody_named_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"pixels")
    assert read_found(str(tmp_path / "file")) == b"pixels"
    for name in (str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(Unreadable, match="a pipe or a device"):
            read_found(name)


def test_pipes_are_read_where_they_are_asked_for_and_files_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    real = os.open

    def opened(name: str, flags: int) -> int:
        threads.append(threading.get_ident())
        return real(name, flags)

    pipe, file = tmp_path / "pipe", Source(str(tmp_path / "file"), read_file)
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"pixels"))
    writer.start()
    monkeypatch.setattr(os, "open", opened)
    read = at_hand(Source(str(pipe), read_file))
    writer.join(10)
    assert threads == [threading.get_ident()]
    assert (read.name, read.read()) == (str(pipe), b"pixels")
    assert at_hand(file) is file  # none is there: it says so when it is read
    with pytest.raises(Unreadable, match="No such file"):
        file.read()
    monkeypatch.setattr(image_files, "MAX_BYTES", 3_000_000)
    too_much = at_hand(Source("/dev/zero", read_file))
    with pytest.raises(Unreadable, match="larger than 3 MB"):
        too_much.read()
