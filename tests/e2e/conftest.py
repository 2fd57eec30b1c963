"""One server for all tests that only ask it things."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.bad_inputs import BODY_LIMIT
from tests.e2e.server import Server, serve


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serve("--max-body-bytes", str(BODY_LIMIT)) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as connected:
        yield connected
