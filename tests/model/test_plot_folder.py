"""Folders of the plotting library: none stays for ever, and none that is in use is taken away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.plot_folder import LEFT_BEHIND_S, PREFIX, PlotFolder
from tests.repo.architecture import ROOT


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def aged(folder: Path, seconds: float = LEFT_BEHIND_S + 60) -> Path:
    (folder / "fontlist.json").write_text("{}")
    os.utime(folder, (time.time() - seconds,) * 2)
    return folder


def test_it_is_ones_own_and_goes_when_told(place: Path) -> None:
    folder = PlotFolder()
    assert folder.path.parent == place
    assert folder.path.stat().st_mode & 0o077 == 0
    (folder.path / "fontlist.json").write_text("{}")
    folder.remove()
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away(place: Path) -> None:
    code = (
        f"import tempfile, time\ntempfile.tempdir = {str(place)!r}\n"
        "from model.plot_folder import PlotFolder\nfolder = PlotFolder()\nprint(folder.path, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        left = aged(Path(other.stdout.readline().strip()))
        PlotFolder().remove()
        assert left.exists()  # its process lives, however old it is
        other.send_signal(signal.SIGKILL)
    PlotFolder().remove()
    assert not left.exists()


def test_nothing_else_is_touched(place: Path) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    link = place / f"{PREFIX}link"
    link.symlink_to(elsewhere)
    os.utime(link, (0, 0), follow_symlinks=False)
    young = place / f"{PREFIX}young"
    young.mkdir()
    aged(young, LEFT_BEHIND_S - 600)
    file = place / f"{PREFIX}file"
    file.write_text("")
    os.utime(file, (0, 0))
    PlotFolder().remove()
    assert {path.name for path in place.iterdir()} == {"elsewhere", link.name, young.name, file.name}
