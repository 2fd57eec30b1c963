"""One server for all tests that only ask it things, and time for processes to start."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.bad_inputs import BODY_LIMIT
from tests.e2e.server import START_S, Server, serve


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where nothing else is said, longer than the start of a process may take, which says better what was wrong."""
    for item in items:
        if item.get_closest_marker("e2e") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(2 * START_S))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serve("--max-body-bytes", str(BODY_LIMIT)) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as connected:
        yield connected
