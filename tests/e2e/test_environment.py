"""Faults of what is around the service: descriptors, clocks, logs that nobody reads, a network that is not there."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.e2e.bad_inputs import jpeg
from tests.e2e.hostile_clients import GET, connect, good_client, many, read, statuses
from tests.e2e.server import Server, command, environment, serve

pytestmark = pytest.mark.e2e

# Read by every interpreter at its start: a wall clock that jumps by a day at each look, back and forth.
JUMPING = """
import itertools, time
real, jumps = time.time, itertools.cycle((0, 86_400, -86_400))
time.time = lambda: real() + next(jumps)
"""


def classify(server: Server) -> int:
    with server.client() as client:
        return client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"}).status_code


def processor_s(server: Server) -> float:
    """Seconds of processor that the service has taken so far."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _spent_in_half_a_second(server: Server) -> float:
    started = processor_s(server)
    time.sleep(0.5)
    return processor_s(server) - started


def test_without_descriptors_it_neither_spins_nor_dies_and_serves_on_afterwards() -> None:
    with serve(SKNET_KEEP_ALIVE_S="30") as server, ExitStack() as stack:
        pid = server.process.pid
        assert classify(server) == 200
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 4, before[1]))
        stack.enter_context(many(server, 40))
        with suppress(OSError):
            stack.enter_context(connect(server, 1))
        assert any(_spent_in_half_a_second(server) < 0.1 for _ in range(4))  # whoever spins does so all the time
        assert server.process.poll() is None
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        stack.close()
        assert classify(server) == 200
        assert server.stop() == 0


def test_a_jumping_wall_clock_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    with serve(PYTHONPATH=path, SKNET_DEADLINE_S="2", SKNET_KEEP_ALIVE_S="2", SKNET_RESULT_CACHE="10") as server:
        with good_client(server) as good:
            with connect(server) as silent:
                started = time.monotonic()
                assert read(silent) == (b"", True)
                assert 1 < time.monotonic() - started < 10
            with connect(server) as slow:
                slow.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nContent-Type: image/jpeg\r\n\r\n")
                assert statuses(read(slow, lambda got: got.endswith(b"}"))[0]) == (408,)
                assert time.monotonic() - started < 15
        assert good.faults == []
        days = {str(record["time"])[:10] for record in server.records()}
        assert len(days) > 1  # the clock did jump
        assert server.stop() == 0


def test_a_log_that_nobody_reads_does_not_stop_it() -> None:
    process = subprocess.Popen(
        command("serve", "--port", "0"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stderr is not None
    server = Server(process)
    try:
        for line in process.stderr:
            if " running on http://" in line:
                server.url = "http" + line.partition(" running on http")[2].split()[0]
                break
        with connect(server) as connection:  # from here on nobody reads: a pipe holds 64 kB
            for _ in range(2000):
                connection.sendall(GET)
                assert statuses(read(connection, lambda got: got.endswith(b"}"))[0]) == (200,)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 15
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stderr.close()


def test_without_weights_and_network_it_ends_at_once_with_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        command("serve", "--port", "0", "--checkpoint", "hf-hub:nobody/nothing"),
        capture_output=True, text=True, timeout=90, check=False,
        env=environment(HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1"),
    )  # fmt: skip
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert said == "Error: hf-hub:nobody/nothing is not in the cache, and offline mode forbids asking the hub"
