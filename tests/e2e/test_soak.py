"""A few seconds of `python -m benchmarks.soak`: every kind of client, and what is held of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.e2e.server import environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]  # seconds on a machine that has nothing else to do


def test_a_short_soak_holds(tmp_path: Path) -> None:
    quick = ["--minutes", "0.08", "--calibrate", "1", "--settle", "1", "--load", "0.5", "--lag", "5"]
    program = [sys.executable, "-m", "benchmarks.soak", *quick, "--no-swaps", "--output", str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=280, env=environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["held"]
    assert set(found["kinds"]) == {"good", "bad", "invalid", "slow", "leaving", "oversized"}
    assert int(found["kinds"]["good"]["as must be"]) > 10
    (svg,) = tmp_path.glob("*-soak.svg")
    assert len(ElementTree.parse(svg).findall(".//{http://www.w3.org/2000/svg}polyline")) == 4
    (text,) = tmp_path.glob("*-soak.md")
    assert f"]({svg.name})" in text.read_text()
