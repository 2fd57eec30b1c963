"""Two worker processes behind one address: the sums of their counts, the death of one, the end of both."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.bad_inputs import jpeg
from tests.e2e.server import Server, command, environment, serve

pytestmark = pytest.mark.e2e

WITHIN_S = 60  # for a worker to load the model, on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service makes its temporary files."""
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serve("--workers", "2", TMPDIR=str(folder)) as running:
        wait_for(lambda: metrics(running).get("sknet_ready_workers") == 2)
        yield running


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end, f"not within {WITHIN_S} s"
        time.sleep(0.05)


def metrics(server: Server, client: httpx.Client | None = None) -> dict[str, float]:
    """Counters and gauges by name, the counts of `/classify` only."""
    with contextlib.ExitStack() as stack:
        text = (client or stack.enter_context(server.client())).get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {s.name: s.value for s in samples if s.labels.get("route", "/classify") == "/classify" and "le" not in s.labels}


def classify(server: Server) -> int:
    """The status that a new client gets."""
    with server.client() as client:
        return client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"}).status_code


def pid_of(server: Server, worker: int) -> int:
    """Of the worker's latest process, by the log."""
    lines = [str(record["message"]) for record in server.records() if record.get("worker") == worker]
    return int([found[1] for line in lines if (found := re.fullmatch(r"Started server process \[(\d+)\]", line))][-1])


def test_both_work_and_either_tells_the_sum(server: Server) -> None:
    before = metrics(server).get("sknet_requests_total", 0)
    with server.client() as one, server.client() as other:
        for client in (one, other):
            assert client.get("/livez").status_code == 200  # connected: the two go to different workers
        for client in (one, other, one):
            answer = client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"})
            assert answer.status_code == 200
        for _ in range(10):
            assert classify(server) == 200
        told = [metrics(server, one), metrics(server, other)]
    for each in told:
        assert each["sknet_requests_total"] == before + 13
        assert each["sknet_images_total"] == before + 13
        assert each["sknet_request_duration_seconds_count"] == before + 13
        assert each["sknet_queue_size"] == 0

    def lines() -> list[object]:
        return [record["worker"] for record in server.records() if record.get("path") == "/classify"]

    wait_for(lambda: len(lines()) >= 13)  # a line is written after its answer, and read after that
    served = lines()
    assert {worker: served.count(worker) for worker in served[-13:]} == {0: served.count(0), 1: served.count(1)}
    assert min(served.count(0), served.count(1)) >= 6


def test_the_address_is_logged_once(server: Server) -> None:
    assert sum("running on http://" in line for line in server.lines) == 1


def test_one_that_is_killed_comes_back_and_nothing_is_forgotten(server: Server) -> None:
    assert classify(server) == 200
    before, killed = metrics(server), pid_of(server, 1)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: any(f"process {killed} ended by signal 9" in line for line in server.lines))
    assert metrics(server)["sknet_requests_total"] == before["sknet_requests_total"]
    sent = 0
    while metrics(server)["sknet_ready_workers"] < 2 or sent < 4:  # nobody meets the one that loads
        assert classify(server) == 200
        sent += 1
    assert pid_of(server, 1) != killed
    assert [classify(server) for _ in range(4)] == [200] * 4
    after = metrics(server)
    assert after["sknet_requests_total"] == before["sknet_requests_total"] + sent + 4
    assert after["sknet_images_total"] == before["sknet_images_total"] + sent + 4
    assert after["sknet_start_time_seconds"] > before["sknet_start_time_seconds"]


def test_workers_do_not_outlive_their_starter(tmp_path: Path) -> None:
    with serve("--workers", "2", wait=False, TMPDIR=str(tmp_path)) as server:
        wait_for(lambda: any("Started server process" in line for line in server.lines))
        pid = pid_of(server, 0)
        server.process.kill()
        server.process.wait(10)

        def gone() -> bool:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            status = Path(f"/proc/{pid}/stat")  # in a container without an init it stays as a zombie
            return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"

        wait_for(gone)


def test_a_checkpoint_that_cannot_be_used_ends_it_all_with_one_line() -> None:
    done = subprocess.run(
        command("serve", "--port", "0", "--workers", "2", "--checkpoint", "/nowhere/weights.safetensors"),
        capture_output=True, text=True, timeout=90, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1
    assert said[0].startswith("Error: ")
    assert "/nowhere/weights.safetensors" in said[0]
    assert done.stderr.count("Started server process") == 1  # no second one, and no second try


def test_sigterm_finishes_what_both_accepted_and_leaves_nothing(server: Server, folder: Path) -> None:
    """The last one: it ends the service that the others ask."""
    data = jpeg()
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        pids = [pid_of(server, 0), pid_of(server, 1)]
        assert len(list(folder.glob("sknet-*"))) == 1
        address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
        connections = [stack.enter_context(socket.create_connection(address, 30)) for _ in range(4)]
        for connection in connections:
            connection.sendall(head + data[:100])
        time.sleep(0.5)  # the requests are under way, their bodies are not
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        for connection in connections:
            connection.sendall(data[100:])
        answers = [connection.makefile("rb").read() for connection in connections]
        assert [answer.split(b"\r\n", 1)[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 4
        assert server.process.wait(30) == 0
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        assert list(folder.glob("sknet-*")) == []
