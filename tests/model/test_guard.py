"""What a decoding process can do wrong costs one image: it crashes, hangs, lies, says nothing, or never starts."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from model import child
from model import guard as guard_module
from model.errors import DecoderUnavailable, ImageError, ImageOverLimit, ImageTooLarge, ImageUndecodable
from model.guard import Guard
from model.image import DEFAULT_LIMITS, FORMATS, TRUSTED, ImageLimits, decode
from tests import images as make
from tests.model import decoding_programs as programs
from tests.strategies import sample

APART = [name for name in FORMATS if name not in TRUSTED]


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    made = Guard(DEFAULT_LIMITS, seconds=30)
    yield made
    made.close()


def ended(pid: int) -> bool:
    """Whether a process is gone, or nobody has cleared away what is left of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def within(condition: object, seconds: float = 30.0) -> bool:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


# --- the same pictures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        *(pytest.param(make.SAMPLES[name](make.photograph(size=(97, 61))), id=name) for name in FORMATS),
        pytest.param(make.oriented(make.quadrants(), 6, "TIFF"), id="turned-tiff"),
        pytest.param(make.oriented(make.quadrants(), 8, "HEIC"), id="turned-heic"),
        pytest.param(make.animation("GIF"), id="animation"),
        pytest.param(make.tiff(np.linspace(0, 1, 5000, dtype="<f4").reshape(50, 100)), id="float-tiff"),
        pytest.param(make.encode(make.photograph("astronaut", (1200, 1100)), "BMP"), id="several-strips"),
    ],
)
def test_apart_or_not_the_pixels_are_the_same(data: bytes, guard: Guard) -> None:
    here, there = decode(data), decode(data, DEFAULT_LIMITS, guard.decode)
    assert here[1] == there[1]
    assert here[0].tobytes() == there[0].tobytes()


TIGHT = ImageLimits(max_pixels=2000, max_side=100, max_frames=2, max_metadata_bytes=70_000)


@pytest.fixture(scope="module")
def tight() -> Iterator[Guard]:
    made = Guard(TIGHT, seconds=30)
    yield made
    made.close()


@pytest.mark.parametrize(
    "data",
    [
        *(pytest.param(sample(name)[: len(sample(name)) // 2], id=f"{name}-cut") for name in APART),
        *(pytest.param(make.SAMPLES[name](make.solid((50, 41))), id=f"{name}-pixels") for name in APART),
        *(pytest.param(make.SAMPLES[name](make.solid((101, 9))), id=f"{name}-side") for name in APART),
        pytest.param(make.encode(make.solid(), "AVIF", icc_profile=bytes(70_001)), id="icc"),
        pytest.param(make.animation("AVIF"), id="frames"),
    ],
)
def test_apart_or_not_what_is_refused_is_refused_in_the_same_words(data: bytes, tight: Guard) -> None:
    raised = []
    for apart in (None, tight.decode):
        with pytest.raises(ImageError) as caught:
            decode(data, TIGHT, apart)
        raised.append(caught.value)
    here, there = raised
    assert (type(here), str(here), vars(here)) == (type(there), str(there), vars(there))


def test_formats_that_are_trusted_start_no_process() -> None:
    guard = Guard(DEFAULT_LIMITS, program=("/nonexistent",))
    for name in TRUSTED:
        assert decode(sample(name), DEFAULT_LIMITS, guard.decode)[1].format == name
    with pytest.raises(DecoderUnavailable):
        decode(sample("GIF"), DEFAULT_LIMITS, guard.decode)


def test_what_a_file_says_of_itself_is_judged_before_a_process_is_started() -> None:
    guard = Guard(DEFAULT_LIMITS, program=("/nonexistent",))
    with pytest.raises(ImageTooLarge):
        decode(make.gif_bomb(), DEFAULT_LIMITS, guard.decode)
    with pytest.raises(ImageOverLimit, match="at least 3 frames; at most 2"):
        decode(make.animation("GIF"), ImageLimits(max_frames=2), guard.decode)


# --- processes that go wrong -------------------------------------------------------------------------------------------


DOWN = "the GIF image brought its decoder down"
MEMORY = "decoding the GIF image takes more than 500000000 bytes of memory"
TIME = "decoding the GIF image takes more than 0.2 seconds"


@pytest.mark.parametrize(
    ("program", "kind", "says", "limit"),
    [
        pytest.param(programs.ABORTING, ImageUndecodable, DOWN, None, id="abort"),
        pytest.param(programs.FAULTING, ImageUndecodable, DOWN, None, id="fault"),
        pytest.param(programs.GREEDY, ImageUndecodable, DOWN, None, id="greedy"),
        pytest.param(programs.ENDING_SHORT, ImageUndecodable, DOWN, None, id="short"),
        *(pytest.param(each, ImageUndecodable, DOWN, None, id=name) for name, each in programs.RUBBISH.items()),
        pytest.param(programs.KILLED, ImageOverLimit, MEMORY, 500_000_000, id="killed"),
        pytest.param(programs.HANGING, ImageOverLimit, TIME, 0.2, id="hanging"),
        pytest.param(programs.DRIPPING, ImageOverLimit, TIME, 0.2, id="dripping"),
    ],
)
def test_the_image_is_refused_and_the_process_is_gone(
    program: tuple[str, ...], kind: type[ImageError], says: str, limit: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard(DEFAULT_LIMITS, seconds=0.2 if limit == 0.2 else 30, memory_bytes=500_000_000, program=program)
    with pytest.raises(kind) as raised:
        guard.decode("GIF", b"the image")
    assert str(raised.value) == says
    assert getattr(raised.value, "limit", None) == limit
    assert "GIF image of 9 bytes" in caplog.text
    assert guard.processes() == ()


def test_a_process_that_says_more_than_it_was_asked_is_replaced() -> None:
    guard = Guard(DEFAULT_LIMITS, program=programs.CHATTY, seconds=30)
    first = guard.decode("GIF", b"abc").getpixel((1, 0))
    assert within(lambda: not next(iter(guard._idle)).is_fresh())
    image = guard.decode("GIF", b"xyz")
    assert image.getpixel((0, 0)) == tuple(b"xyz")
    assert image.getpixel((1, 0)) != first
    guard.close()


def test_an_image_that_its_process_never_had_goes_to_another(tmp_path: Path) -> None:
    guard = Guard(DEFAULT_LIMITS, program=programs.once(str(tmp_path / "flag")), seconds=30)
    assert guard.decode("GIF", b"abc").getpixel((0, 0)) == tuple(b"abc")
    assert (tmp_path / "flag").exists()
    (pid,) = guard.processes()
    os.kill(pid, signal.SIGKILL)  # while it waits: by the system, say
    assert within(lambda: ended(pid))
    assert guard.decode("GIF", b"xyz").getpixel((0, 0)) == tuple(b"xyz")
    guard.close()


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (("/nonexistent",), "cannot be started: No such file or directory"),
        (programs.ENDING, "does not start"),
        (programs.SILENT, "does not start"),
        (programs.BABBLING, "does not start"),
        (programs.CLOSING_EARLY, "end before they begin"),
        (programs.DEAF, "end before they begin"),
    ],
    ids=["none", "ends", "silent", "babbles", "closes", "deaf"],
)
def test_without_a_process_the_image_may_be_sent_again(
    program: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "START_S", 5.0 if program == programs.DEAF else 1.0)
    monkeypatch.setattr(child, "HAND_OVER_S", 0.1)
    guard = Guard(DEFAULT_LIMITS, program=program)
    with pytest.raises(DecoderUnavailable, match=says) as raised:
        guard.decode("GIF", bytes(3_000_000))  # more than a pipe holds
    assert raised.value.retry_after == 1
    assert guard.processes() == ()


def test_all_attempts_together_have_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "BEGIN_S", 1.0)
    guard = Guard(DEFAULT_LIMITS, program=programs.DEAF)
    before = time.monotonic()
    with pytest.raises(DecoderUnavailable):
        guard.decode("GIF", bytes(3_000_000))  # each attempt would wait for `HAND_OVER_S`
    assert time.monotonic() - before < child.HAND_OVER_S
    assert guard.processes() == ()


@pytest.mark.parametrize("error", [OSError("poll"), MemoryError(), KeyboardInterrupt()], ids=repr)
def test_whatever_befalls_the_start_of_a_process_it_is_not_left_behind(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(child.Child, "expect", fail)
    guard = Guard(DEFAULT_LIMITS, program=programs.WORKING)
    with pytest.raises(DecoderUnavailable if isinstance(error, Exception) else KeyboardInterrupt):
        guard.decode("GIF", b"abc")
    assert guard.processes() == ()


def test_without_memory_for_a_process_the_image_may_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(guard_module, "Child", fail)
    with pytest.raises(DecoderUnavailable, match="cannot be started: MemoryError"):
        Guard(DEFAULT_LIMITS).decode("GIF", b"abc")


# --- many at once, and the end -----------------------------------------------------------------------------------------


def test_threads_get_their_own_pictures_from_few_processes() -> None:
    guard = Guard(DEFAULT_LIMITS, program=programs.WORKING, most=3, seconds=30)
    images = [bytes((i, 255 - i, 7)) for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda data: guard.decode("GIF", data), images))
    assert [picture.getpixel((0, 0)) for picture in pictures] == [tuple(data) for data in images]
    pids = {picture.getpixel((1, 0)) for picture in pictures}
    assert len(pids) == len(guard.processes()) <= 3
    guard.close()


def test_a_crash_beside_others_costs_nobody_else_anything() -> None:
    guard = Guard(DEFAULT_LIMITS, program=programs.FRAGILE, most=3, seconds=30)

    def outcome(data: bytes) -> object:
        try:
            return guard.decode("GIF", data).getpixel((0, 0))
        except ImageUndecodable as error:
            return str(error)

    images = [b"bad" if i % 5 == 2 else bytes((i, i, i)) for i in range(20)]
    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(outcome, images))
    assert outcomes == [DOWN if data == b"bad" else tuple(data) for data in images]
    guard.close()


def test_a_process_is_replaced_after_so_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "MOST_IMAGES", 2)
    guard = Guard(DEFAULT_LIMITS, program=programs.WORKING, seconds=30)
    pids = [guard.decode("GIF", b"abc").getpixel((1, 0)) for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    guard.close()


def test_the_end_frees_whoever_waits() -> None:
    guard = Guard(DEFAULT_LIMITS, program=programs.HANGING, most=1, seconds=50)
    told: list[str] = []

    def ask() -> None:
        try:
            guard.decode("GIF", b"abc")
        except DecoderUnavailable as error:
            told.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert within(lambda: any(each.images for each in tuple(guard._alive)))
    (pid,) = guard.processes()
    guard.close()
    for thread in threads:
        thread.join(20)
    assert told == ["the model is being unloaded; try again"] * 3
    assert guard.processes() == ()
    assert ended(pid)
    guard.close()  # again, to no effect


def test_a_guard_that_nobody_closes_leaves_no_process() -> None:
    guard = Guard(DEFAULT_LIMITS, program=programs.WORKING, seconds=30)
    guard.decode("GIF", b"abc")
    (pid,) = guard.processes()
    assert not ended(pid)
    del guard
    gc.collect()
    assert ended(pid)


def test_processes_end_with_whoever_started_them() -> None:
    code = (
        "import os, signal, sys\n"
        "from model.guard import Guard\nfrom model.image import DEFAULT_LIMITS\n"
        "guard = Guard(DEFAULT_LIMITS)\n"
        "guard.decode('BMP', sys.stdin.buffer.read())\n"
        "print(*guard.processes(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=sample("BMP"), capture_output=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (pid,) = map(int, done.stdout.split())
    assert within(lambda: ended(pid))


def test_no_descriptor_is_left_behind() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as the kernel shows it

    before = count()
    for program in (programs.ABORTING, programs.ENDING, ("/nonexistent",), programs.WORKING):
        guard = Guard(DEFAULT_LIMITS, program=program, seconds=30)
        with pytest.raises((ImageUndecodable, DecoderUnavailable)) if program != programs.WORKING else nullcontext():
            guard.decode("GIF", b"abc")
        guard.close()
    assert count() == before
