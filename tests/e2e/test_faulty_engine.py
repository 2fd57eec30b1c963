"""A real service whose engine fails, gives nonsense, hangs or loses its device: what clients see, and that it comes back."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.e2e.server import Server, serve
from tests.images import encode, solid

pytestmark = pytest.mark.e2e

STUCK_S = 1.0


@contextmanager
def faulty(orders: Path, stuck_s: float = STUCK_S) -> Iterator[Server]:
    with serve(program=("tests.e2e.faulty", str(orders)), SKNET_STUCK_S=str(stuck_s)) as server:
        yield server


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def post(client: httpx.Client) -> httpx.Response:
    return client.post("/classify", content=encode(solid()), headers={"Content-Type": "image/png"})


def ready(client: httpx.Client) -> bool:
    return client.get("/readyz").status_code == 200


def test_faults_are_told_and_then_mended(tmp_path: Path) -> None:
    """One after the other in one service, which ends as it should at last."""
    orders = tmp_path / "orders"
    with faulty(orders) as server, server.client() as client:
        for order, kind, before in (("raise", "failing", 0), ("nan", "failing", 1), ("gone", "failing", 2), ("hang", "stuck", 0)):
            fault_and_mending(server, client, orders, order)
            assert f'sknet_troubles_total{{kind="{kind} engine"}} {before + 1}.0' in client.get("/metrics").text
        assert server.stop() == 0  # a thread that never comes back does not hold up the end


def fault_and_mending(server: Server, client: httpx.Client, orders: Path, order: str) -> None:
    assert post(client).status_code == 200
    orders.write_text(order)
    seen: list[int] = []
    asking = [threading.Thread(target=ask, args=(server, seen)) for _ in range(4)]
    for thread in asking:
        thread.start()
    assert within(20, lambda: not ready(client)), (order, seen)
    assert client.get("/livez").status_code == 200
    reason = client.get("/readyz").json()["reasons"][0]
    orders.write_text("")
    for thread in asking:
        thread.join(30)
    assert set(seen) <= {500, 503}, order  # at once or when it was noticed, and never the deadline's 504
    assert (503 in seen) if order == "hang" else (500 in seen)
    assert ("not come back" if order == "hang" else "failed") in reason
    assert within(30, lambda: ready(client)), order
    assert post(client).status_code == 200


def ask(server: Server, seen: list[int]) -> None:
    """Until the service says that it is not ready; each with the same image, and each answer noted."""
    with server.client() as client:
        for _ in range(6):
            seen.append(post(client).status_code)
            if seen[-1] == 503:
                return


@pytest.mark.parametrize("between_s", [0.0, 1.0])
def test_ctrl_c_twice_ends_it_whatever_hangs(tmp_path: Path, between_s: float) -> None:
    orders = tmp_path / "orders"
    with faulty(orders, stuck_s=600) as server, server.client() as client:
        orders.write_text("hang")
        asking = threading.Thread(target=hang_up, args=(server,))
        asking.start()
        assert within(20, lambda: "sknet_queue_size 1.0" in client.get("/metrics").text)
        server.process.send_signal(signal.SIGINT)
        assert within(20, lambda: any("hutting down" in line for line in server.lines))
        time.sleep(between_s)  # as it waits for the answer, or for the call after it
        assert server.stop(signal.SIGINT, within_s=15) == 1
        asking.join(10)


def hang_up(server: Server) -> None:
    with server.client() as client, suppress(httpx.TransportError):
        post(client)


def test_a_process_that_hangs_for_good_ends_and_says_why(tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    with faulty(orders, 0.5) as server, server.client() as client:
        orders.write_text("hang")
        end = time.monotonic() + 60
        while server.process.poll() is None and time.monotonic() < end:
            with suppress(httpx.TransportError):  # it ended, or is about to
                assert post(client).status_code == 503
            time.sleep(0.05)
        assert server.process.wait(30) == 1
        assert "must be started anew" in "\n".join(server.lines)
