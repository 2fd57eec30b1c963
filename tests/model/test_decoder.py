"""The decoding process by itself: what it gives up, and that the system ends it in time, whoever watches."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from model.image import DEFAULT_LIMITS, ImageLimits
from model.wire import HEAD_BYTES, LENGTH, NO_MEMORY, PICTURE, READY, TAKEN, Answer, Order, text_bytes, unpack
from tests import images as make
from tests.strategies import sample

COMMAND = (sys.executable, "-P", "-B", "-m", "model.decoder")


@contextmanager
def decoder(seconds: float = 30, memory_bytes: int = 1_500_000_000) -> Iterator[subprocess.Popen[bytes]]:
    order = Order(ImageLimits(max_pixels=60_000_000), seconds, memory_bytes)
    with subprocess.Popen([*COMMAND, order.dump()], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert answer(process).kind == READY
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[bytes]) -> Answer:
    assert process.stdout is not None
    head = process.stdout.read(HEAD_BYTES)
    return unpack(head, process.stdout.read(text_bytes(head)))


def send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(LENGTH.pack(len(data)) + data)
    process.stdin.flush()
    assert answer(process).kind == TAKEN


def limits_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return {line[:26].strip(): line[26:].split()[1] for line in lines[1:]}  # the hard ones


def test_it_gives_up_what_it_does_not_need() -> None:
    with decoder(memory_bytes=700_000_000) as process:
        limits = limits_of(process.pid)
        assert limits["Max address space"] == "700000000"
        assert limits["Max core file size"] == limits["Max file size"] == "0"
        assert int(limits["Max open files"]) < 32
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "1000"
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)


def test_it_starts_without_what_it_does_not_need() -> None:
    code = "import sys, model.decoder\nprint(sorted({'numpy', 'torch', 'openvino', 'pillow_heif'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_it_serves_one_image_after_the_other_until_its_input_ends() -> None:
    with decoder() as process:
        for name in ("GIF", "TIFF", "HEIC", "AVIF", "BMP"):
            send(process, sample(name))
            got = answer(process)
            assert (got.kind, got.width, got.height) == (PICTURE, 48, 40)
            assert process.stdout is not None
            assert len(process.stdout.read(48 * 40 * 3)) == 48 * 40 * 3
        out, _ = process.communicate(timeout=30)
        assert (out, process.returncode) == (b"", 0)


# Seconds of work: floats of many pixels are scaled by several passes over hundreds of megabytes.
HEAVY = make.encode(make.solid((6000, 6000), 0.5, "F"), "TIFF", compression="tiff_lzw")


def test_the_system_ends_it_when_its_processor_time_is_over() -> None:
    with decoder(seconds=0.05) as process:
        send(process, HEAVY)
        assert process.wait(60) == -signal.SIGPROF  # nobody here has killed it


def test_the_system_ends_it_when_it_waits_for_ever() -> None:
    with decoder(seconds=0.2) as process:
        assert process.stdin is not None
        picture = make.encode(make.photograph("astronaut", (2000, 1500)), "BMP")
        send(process, picture)  # nobody reads the pixels: more than a pipe holds
        assert process.wait(60) in (-signal.SIGALRM, -signal.SIGPROF)


def test_a_picture_beyond_its_memory_is_said_so_and_ends_it() -> None:
    with decoder(memory_bytes=250_000_000) as process:
        send(process, make.encode(make.solid((7000, 7000), 1, "1"), "BMP"))  # 49 MB, and four times that as RGB
        assert answer(process).kind == NO_MEMORY
        assert process.wait(30) == 0


def test_where_a_limit_cannot_be_set_it_goes_on() -> None:
    code = (
        "import resource\n"
        "def fail(*_): raise ValueError('not here')\n"
        "resource.setrlimit = fail\n"
        "from model.decoder import confine\n"
        "confine(10**9)\n"
        "print(resource.getrlimit(resource.RLIMIT_AS)[1] != 10**9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "True"


def test_a_limit_that_is_lower_already_stays() -> None:
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (800_000_000, 900_000_000))\n"
        "from model.decoder import confine\n"
        "confine(10**9)\n"
        "print(resource.getrlimit(resource.RLIMIT_AS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "(900000000, 900000000)"
    assert resource.getrlimit(resource.RLIMIT_AS)[1] != 900_000_000


def test_samples_of_more_than_eight_bits_load_their_library_within_the_limits() -> None:
    with decoder(memory_bytes=400_000_000) as process:
        send(process, make.tiff(np.linspace(0, 1, 12, dtype="<f4").reshape(3, 4)))
        assert answer(process).kind == PICTURE


def test_an_order_arrives_as_it_was_given() -> None:
    order = Order(DEFAULT_LIMITS, 1.5, 10**9)
    assert Order.load(order.dump()) == order
