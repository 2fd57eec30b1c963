"""What `make test` runs, with a Python that only notes what it is asked for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTES = """#!/bin/sh
echo "$@" >> asked
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout whose environment is made already."""
    for name in ("Makefile", "requirements-dev.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(NOTES)
    python.chmod(0o755)
    (tmp_path / ".venv" / ".test").touch()
    return tmp_path


def make(folder: Path, *arguments: str) -> tuple[str, list[str]]:
    """What it printed, and what Python was asked for. Without the variables of a `make` that runs these tests."""
    program = shutil.which("make")
    assert program is not None
    done = subprocess.run(
        [program, *arguments], cwd=folder, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=True
    )
    asked = folder / "asked"
    return done.stdout, sorted(asked.read_text().splitlines()) if asked.exists() else []


def test_without_arguments_both_halves_run(folder: Path) -> None:
    assert make(folder, "test")[1] == ["-m tests"]


def test_with_arguments_it_is_one_process(folder: Path) -> None:
    assert make(folder, "test", "ARGS=--lf -x")[1] == ["-m pytest --lf -x"]


@pytest.mark.parametrize("arguments", [(), ("ARGS=--version",)])
def test_asked_what_it_would_do_it_does_nothing(folder: Path, arguments: tuple[str, ...]) -> None:
    printed, asked = make(folder, "-n", "test", *arguments)
    assert " -m " in printed
    assert asked == []
