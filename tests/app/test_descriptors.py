"""Open files: the limit is raised, and connections are bounded by what it leaves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.descriptors import MOST_CONNECTIONS, connection_limit


@pytest.mark.parametrize(
    ("asked", "files", "limit"),
    [(0, 65_536, MOST_CONNECTIONS), (0, 1024, 448), (100, 1024, 100), (20_000, 65_536, 20_000), (5000, 1024, 448), (0, 10, 1)],
)
def test_connections_are_bounded_by_open_files(asked: int, files: int, limit: int) -> None:
    assert connection_limit(asked, files) == limit


def test_a_limit_that_cannot_be_kept_is_told(caplog: pytest.LogCaptureFixture) -> None:
    connection_limit(448, 1024)
    assert caplog.messages == []
    connection_limit(449, 1024)
    assert caplog.messages == ["449 connections need 1026 open files, but 1024 are allowed: the limit is 448 connections"]


@pytest.mark.parametrize(("soft", "hard", "then"), [(200, 300, 300), (300, 300, 300)])
def test_the_limit_on_open_files_is_raised_as_far_as_allowed(soft: int, hard: int, then: int) -> None:
    code = (
        f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from app.descriptors import limit, raise_limit; raise_limit(); print(limit(), r.getrlimit(r.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(then)] * 2
