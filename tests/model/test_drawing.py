"""A figure that is drawn apart is the same figure; what its process does wrong costs that one figure and no more."""

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
from pathlib import Path

import pytest

from model import child
from model import drawing as module
from model.commission import Commission
from model.drawing import Drawings
from model.errors import DrawingFailed, DrawingUnavailable, FiguresUnavailable
from model.figure import draw
from tests import images as make
from tests.model import drawing_programs as programs
from tests.model.explanations import MAKER, explanation
from tests.model.test_guard import ended, within
from tests.repo.architecture import ROOT

PHOTOGRAPH = make.photograph(size=(120, 80))


@pytest.fixture
def drawings(request: pytest.FixtureRequest) -> Iterator[Drawings]:
    made = Drawings(seconds=30, program=request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def real() -> Iterator[Drawings]:
    made = Drawings(seconds=50)
    yield made
    made.close()


def figure(drawings: Drawings) -> bytes:
    return drawings.figure(PHOTOGRAPH, explanation(), MAKER)


def pid_of(file: bytes) -> int:
    assert file.startswith(programs.FILE)
    return int.from_bytes(file[-4:], "big")


# --- the same figures --------------------------------------------------------------------------------------------------


def test_a_commission_arrives_as_it_was_given() -> None:
    told = explanation(("猫", 'a "b"\n'), first=0.1, kernel_sizes=(3, 5, 7), comparable=False)
    back = Commission.unpack(Commission(PHOTOGRAPH, told, MAKER, "svg").pack())
    assert (back.explanation, back.maker, back.form) == (told, MAKER, "svg")
    assert (back.image.size, back.image.tobytes()) == (PHOTOGRAPH.size, PHOTOGRAPH.tobytes())


def test_apart_or_not_the_figures_are_the_same(real: Drawings) -> None:
    for told in (explanation(), explanation(("$x^2$", "猫\n")), explanation(kernel_sizes=(3, 5, 7), first=0.3)):
        assert real.figure(PHOTOGRAPH, told, MAKER) == draw(PHOTOGRAPH, told, MAKER)
    (pid,) = real.processes()
    assert real.figure(PHOTOGRAPH, explanation(), MAKER, "pdf").startswith(b"%PDF")
    assert real.processes() == (pid,)


def test_the_home_folder_stays_clean_and_secrets_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKNET_API_KEYS", "a-key-of-16-chars")
    drawings = Drawings()
    figure(drawings)
    (pid,) = drawings.processes()
    environment = dict(entry.split("=", 1) for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if entry)
    assert "SKNET_API_KEYS" not in environment
    assert "HOME" not in environment
    folder = Path(environment["MPLCONFIGDIR"])
    assert folder.stat().st_mode & 0o077 == 0
    drawings.close()
    assert not folder.exists()


def test_it_takes_no_process_to_have_one_and_none_is_left() -> None:
    drawings = Drawings(program=programs.WORKING)
    assert drawings.processes() == ()
    pid = pid_of(figure(drawings))
    assert drawings.processes() == (pid,)
    drawings.close()
    assert ended(pid)
    with pytest.raises(DrawingUnavailable, match="unloaded"):
        figure(drawings)


# --- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drawings", [programs.WORKING], indirect=True)
def test_a_process_that_was_killed_is_replaced(drawings: Drawings) -> None:
    first = pid_of(figure(drawings))
    os.kill(first, signal.SIGKILL)
    assert within(lambda: ended(first))
    second = pid_of(figure(drawings))
    assert second != first
    assert drawings.processes() == (second,)


@pytest.mark.parametrize("drawings", [programs.CHATTY], indirect=True)
def test_a_process_that_says_what_it_was_not_asked_is_replaced(drawings: Drawings) -> None:
    first = pid_of(figure(drawings))
    assert within(lambda: not drawings._alive[0].is_fresh())
    assert pid_of(figure(drawings)) != first


@pytest.mark.parametrize("drawings", [programs.ABORTING, programs.CLOSING_EARLY, programs.ENDING], indirect=True)
def test_one_that_ends_costs_its_figure(drawings: Drawings) -> None:
    for _ in range(2):
        with pytest.raises(DrawingUnavailable):
            figure(drawings)
        assert drawings.processes() == ()


@pytest.mark.parametrize("program", [programs.HANGING, programs.DRIPPING])
def test_one_that_hangs_is_given_up_in_time(program: tuple[str, ...]) -> None:
    drawings = Drawings(seconds=0.4, program=program)
    before = time.monotonic()
    with pytest.raises(DrawingUnavailable, match="not finished in time"):
        figure(drawings)
    assert time.monotonic() - before < 20  # of the 60 that it would sleep
    assert drawings.processes() == ()
    drawings.close()


@pytest.mark.parametrize("drawings", list(programs.RUBBISH.values()), ids=list(programs.RUBBISH), indirect=True)
def test_rubbish_is_no_figure(drawings: Drawings) -> None:
    with pytest.raises(DrawingUnavailable):
        figure(drawings)
    assert drawings.processes() == ()


@pytest.mark.parametrize("drawings", [programs.FAILING], indirect=True)
def test_a_figure_that_cannot_be_drawn_costs_no_process(drawings: Drawings) -> None:
    for _ in range(2):
        with pytest.raises(DrawingFailed, match="KeyError"):
            figure(drawings)
        assert len(drawings.processes()) == 1


def test_a_real_one_survives_a_figure_that_cannot_be_drawn(real: Drawings) -> None:
    figure(real)
    before = real.processes()
    with pytest.raises(DrawingFailed, match="KeyError"):
        real.figure(PHOTOGRAPH, explanation(), MAKER, "gif")
    assert figure(real)
    assert real.processes() == before


def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DrawingUnavailable, match="cannot be started: No such file"):
        figure(Drawings(program=(str(tmp_path / "missing"),)))


def test_a_real_one_stops_itself_at_its_processor_time() -> None:
    drawings = Drawings(seconds=0.02)
    drawings._seconds = 30  # so that it is not the clock here that ends it
    with pytest.raises(DrawingUnavailable):
        drawings.figure(PHOTOGRAPH, explanation(names=[f"SK_2_{i}" for i in range(1, 200)]), MAKER)
    assert drawings.processes() == ()
    drawings.close()


# --- several at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drawings", [programs.WORKING], indirect=True)
def test_several_threads_share_one_process(drawings: Drawings) -> None:
    with ThreadPoolExecutor(6) as pool:
        files = list(pool.map(lambda _: figure(drawings), range(24)))
    assert len({pid_of(file) for file in files}) == 1


def test_who_waits_too_long_for_a_turn_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.05)
    drawings = Drawings(seconds=30, program=programs.HANGING)
    failed: list[BaseException] = []

    def first() -> None:
        try:
            figure(drawings)
        except DrawingUnavailable as error:
            failed.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert within(lambda: bool(drawings.processes()))
    with pytest.raises(DrawingUnavailable, match="others' figures"):
        figure(drawings)
    drawings.close()
    thread.join(20)
    assert "unloaded" in str(failed[0])
    assert drawings.processes() == ()


@pytest.mark.parametrize("program", [programs.HANGING, programs.NEVER_READY], ids=["draws", "starts"])
def test_all_who_wait_leave_at_once_when_it_is_closed(program: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    drawings = Drawings(seconds=30, program=program)

    def one(_: int) -> str:
        with pytest.raises(DrawingUnavailable) as caught:
            figure(drawings)
        return str(caught.value)

    with ThreadPoolExecutor(4) as pool:
        waiting = pool.map(one, range(4))
        assert within(lambda: bool(drawings.processes()))
        before = time.monotonic()
        drawings.close()
        assert {text.partition(";")[0] for text in waiting} == {"the model is being unloaded"}
    assert time.monotonic() - before < 5  # of the 20 and 60 that they would wait
    assert caplog.records == []  # nothing is wrong


def test_after_so_many_figures_the_next_has_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FIGURES", 2)
    drawings = Drawings(program=programs.WORKING)
    pids = [pid_of(figure(drawings)) for _ in range(4)]
    assert (pids[0] == pids[1], pids[1] == pids[2], pids[2] == pids[3]) == (True, False, True)
    drawings.close()


def test_an_interrupt_leaves_no_half_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    drawings = Drawings(program=programs.WORKING)
    figure(drawings)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(child.Child, "message", interrupt)
        with pytest.raises(KeyboardInterrupt):
            figure(drawings)
    assert drawings.processes() == ()
    assert pid_of(figure(drawings))
    drawings.close()


# --- ends with its parent ----------------------------------------------------------------------------------------------


def test_nobody_needs_to_close_it() -> None:
    drawings = Drawings(program=programs.WORKING)
    pid = pid_of(figure(drawings))
    del drawings
    gc.collect()
    assert within(lambda: ended(pid))


def test_the_process_ends_with_the_one_that_was_killed() -> None:
    code = (
        "import time\n"
        "from model.drawing import Drawings\n"
        "from tests.model.explanations import MAKER, explanation\n"
        "from PIL import Image\n"
        "drawings = Drawings()\n"
        "drawings.figure(Image.new('RGB', (9, 9)), explanation(), MAKER)\n"
        "print(*drawings.processes(), drawings._folders[0].path, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        assert Path(folder).is_dir()
        parent.kill()
    assert within(lambda: ended(int(pid)))
    assert not Path(folder).exists()


def test_without_the_library_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    drawings = Drawings(program=programs.WORKING)
    with pytest.raises(FiguresUnavailable):
        figure(drawings)
    assert drawings.processes() == ()
