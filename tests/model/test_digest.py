"""SHA-256 of files, and pins."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from model.digest import parse_sha256, sha256_of
from model.errors import CheckpointCorrupt, CheckpointNotFound


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_is_that_of_the_whole_file(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(data[:size])
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data[:size]).hexdigest()


def test_a_large_file_on_a_terminal_shows_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("model.digest._BAR_FROM_BYTES", 10)
    (tmp_path / "file").write_bytes(b"x" * 10)
    sha256_of(tmp_path / "file")
    assert capsys.readouterr().err == ""  # the capture is no terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    sha256_of(tmp_path / "file")
    assert "checking" in capsys.readouterr().err


def test_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="No such file"):
        sha256_of(tmp_path / "none")


def test_a_pin_may_be_written_either_way() -> None:
    assert parse_sha256("sha256:" + "AB" * 32) == parse_sha256(" " + "ab" * 32) == "ab" * 32


@pytest.mark.parametrize("pin", ["", "abc", "g" * 64, "a" * 63, "md5:" + "a" * 64])
def test_what_is_no_sha256(pin: str) -> None:
    with pytest.raises(CheckpointCorrupt, match="64 hexadecimal digits"):
        parse_sha256(pin)
