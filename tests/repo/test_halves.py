"""`python -m tests`: every test is in one of the halves, both run at once, and neither's failure is lost."""

from __future__ import annotations

import sys

import pytest

from tests.__main__ import HALVES, OUTER, ROOT, side_by_side

MEET = """
import sys, time
from pathlib import Path
own, other = Path(sys.argv[1]), Path(sys.argv[2])
own.touch()
end = time.monotonic() + 30
while not other.exists() and time.monotonic() < end:
    time.sleep(0.01)
print("met" if other.exists() else "alone")
"""


def test_no_folder_is_left_out() -> None:
    assert HALVES["inner"][0] == "tests"
    assert HALVES["inner"][1:] == tuple(f"--ignore={folder}" for folder in HALVES["outer"])
    assert all((ROOT / folder).is_dir() for folder in OUTER)


def test_they_run_at_once_and_each_line_has_its_half(
    tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path_factory.mktemp("halves")
    one, two = str(folder / "one"), str(folder / "two")
    python = [sys.executable, "-c", MEET]
    assert side_by_side({"a": [*python, one, two], "b": [*python, two, one]}) == {"a": 0, "b": 0}
    assert sorted(capfd.readouterr().out.splitlines()) == ["a: met", "b: met"]


def test_a_failure_of_either_is_told() -> None:
    commands = {"good": [sys.executable, "-c", ""], "bad": [sys.executable, "-c", "raise SystemExit(3)"]}
    assert side_by_side(commands) == {"good": 0, "bad": 3}
