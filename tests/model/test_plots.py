"""Whoever draws in his own process: the user's home and style have no part in it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from model import plots
from tests.repo.architecture import ROOT

DRAW = """
import hashlib
import numpy as np
from model import confusion, study_figure
from model.explain import SCALES
from model.study import Mean, Study
from model.types import Label
means = tuple(Mean(None, "SK_2_1", "m", scale, 4, 0.1, 0.02, (0.5, 0.5)) for scale in SCALES)
study = Study(means, ("ants",), (3, 5), True, "a test said so", "sknet-made-up", "sha256:0123")
counts = np.array([[3, 1, 0], [0, 2, 1]])
for data in (study_figure.draw(study), confusion.draw((0, 1), counts, [Label("ant"), Label("bee")], "title", "png")):
    print(hashlib.sha256(data).hexdigest())
"""
RED = "axes.facecolor: red\nfont.size: 40\nsavefig.transparent: True\n"


def files(home: Path) -> list[Path]:
    """All but those of the program that lists the system's fonts."""
    return sorted(
        path for path in home.rglob("*") if not {".cache", "fontconfig"} & set(path.parts) or "matplotlib" in path.parts
    )


def panel() -> Figure:
    figure = plots.blank(100, 100)
    plots.plain_axes(figure, (0.1, 0.1, 0.8, 0.8))
    return figure


def test_the_home_folder_stays_clean_and_the_users_style_is_not_ours(tmp_path: Path) -> None:
    homes = [tmp_path / "plain", tmp_path / "styled"]
    told = []
    for home in homes:
        (home / ".config" / "matplotlib").mkdir(parents=True)
        (home / "tmp").mkdir()
    for style in (homes[1] / ".config" / "matplotlib" / "matplotlibrc", homes[1] / "tmp" / "matplotlibrc"):
        style.write_text(RED)
    for home in homes:
        before = files(home)
        environment = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-P", "-B", "-c", DRAW]
        done = subprocess.run(command, cwd=home / "tmp", env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout.split())
        assert files(home) == before
    assert told[0] == told[1]
    assert len(told[0]) == 2


def test_a_style_that_was_set_is_neither_used_nor_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = plots.drawn(panel)
    with matplotlib.rc_context({"axes.facecolor": "red", "axes.linewidth": 9}):
        assert plots.drawn(panel) == plain
        assert matplotlib.rcParams["axes.facecolor"] == "red"


def test_threads_do_not_take_the_style_from_each_other() -> None:
    plain = plots.drawn(panel)
    start = threading.Barrier(4)

    def one(_: int) -> str:
        start.wait(20)
        return hashlib.sha256(plots.drawn(panel)).hexdigest()

    with matplotlib.rc_context({"axes.facecolor": "red"}), ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(4))) == {hashlib.sha256(plain).hexdigest()}
        assert matplotlib.rcParams["axes.facecolor"] == "red"
