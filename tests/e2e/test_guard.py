"""A decoder that really crashes, and a picture that really needs too much: one answer each, and the service goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.e2e.bad_inputs import good
from tests.e2e.server import Server, serve
from tests.images import encode
from tests.strategies import sample

pytestmark = pytest.mark.e2e

MEMORY_BYTES = 250_000_000


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    with serve("--decode-memory-bytes", str(MEMORY_BYTES), "--decode-s", "30", "--deadline-s", "60") as running:
        yield running


def decoders(server: Server) -> list[int]:
    """The decoding processes of a server."""
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    return [pid for pid in children if b"model.decoder" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def processor_time(pid: int) -> int:
    """Ticks that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def upload(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/classify", content=data, headers={"Content-Type": "application/octet-stream"}, timeout=60)


def test_formats_that_are_trusted_need_no_process(guarded: Server) -> None:
    with guarded.client() as client:
        good(client)
        assert decoders(guarded) == []
        assert upload(client, sample("GIF")).status_code == 200
        assert len(decoders(guarded)) == 1


def crash(server: Server, client: httpx.Client, data: bytes) -> httpx.Response:
    """Send an image and end the process that decodes it by a fault of memory, as soon as it has begun to work on it."""
    (pid,) = decoders(server)
    before = processor_time(pid)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(upload, client, data)
        while processor_time(pid) < before + 3:
            time.sleep(0.002)
        os.kill(pid, signal.SIGSEGV)
        return answer.result()


def test_a_crash_in_the_middle_costs_one_image(guarded: Server) -> None:
    slow = encode(Image.new("L", (64, 65_535)), "TIFF", tiffinfo={278: 1})  # as many strips as rows: a third of a second
    with guarded.client() as client:
        assert upload(client, sample("GIF")).status_code == 200
        (first,) = decoders(guarded)
        for _ in range(9):  # this process may wake up when the other one is done
            problem = crash(guarded, client, slow).json()
            if "predictions" not in problem:
                break
            assert upload(client, sample("GIF")).status_code == 200
        assert (problem["status"], problem["type"]) == (422, "/problems/image-undecodable"), problem
        assert problem["detail"] == "the TIFF image brought its decoder down"
        assert upload(client, sample("TIFF")).json()["image"]["format"] == "TIFF"
        assert decoders(guarded) != [first]
        good(client)


def test_a_picture_beyond_the_memory_costs_one_image(guarded: Server) -> None:
    large = encode(Image.new("1", (7000, 7000)), "BMP")  # 6 MB to send, 49 MB in bits, 196 MB in colours
    with guarded.client() as client:
        problem = upload(client, large).json()
        assert (problem["status"], problem["type"], problem["limit"]) == (422, "/problems/image-over-limit", MEMORY_BYTES)
        assert problem["detail"] == f"decoding the BMP image takes more than {MEMORY_BYTES} bytes of memory"
        assert upload(client, sample("BMP")).status_code == 200
        good(client)


def test_the_end_of_the_service_is_the_end_of_its_processes(guarded: Server) -> None:
    with guarded.client() as client:
        assert upload(client, sample("BMP")).status_code == 200
    (pid,) = decoders(guarded)
    assert guarded.stop() == 0
    assert not Path(f"/proc/{pid}").exists()
