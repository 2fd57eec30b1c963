"""A short run of `python -m benchmarks.soak.schema`: the OpenAPI document against a running service."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.e2e.server import environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]  # seconds on a machine that has nothing else to do


def test_the_document_and_the_service_agree() -> None:
    program = [sys.executable, "-m", "benchmarks.soak.schema", "--quick"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=280, env=environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cases"] >= 150
    assert found["operations"] >= 8
    assert {"examples", "coverage", "fuzzing", "stateful"} <= set(found["phases"])
    assert {"negative_data_rejection", "positive_data_acceptance", "no_image_is_refused"} <= set(found["checks"])
