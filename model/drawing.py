"""Figures drawn in a process of their own, which is started at the first one, kept for the next ones, and ends with this one.

Drawing holds the interpreter for most of its third of a second: in the process of a service everybody else's answers would be
late by that. A process that hangs, dies or answers rubbish costs one figure and is replaced. How a figure is drawn is in
`model.figure`, and what such a process does in `model.draftsman`.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from collections.abc import Sequence

from PIL import Image

from model import plots
from model.child import Child, Late, Lost
from model.commission import Commission
from model.errors import DrawingFailed, DrawingUnavailable
from model.figure import Maker, reduced
from model.plot_folder import PlotFolder
from model.types import Explanation
from model.wire import DRAWN, FAILED, PATIENCE, READY, Answer, Rubbish

logger = logging.getLogger("sknet.model")

PROGRAM = (sys.executable, "-P", "-B", "-m", "model.draftsman")
START_S = 20.0  # until a process is ready: it reads the plotting library, and once the fonts there are
TURN_S = 20.0  # until the figures asked for before are drawn
MOST_FIGURES = 500  # of one process, so that what libraries leak does not add up
MOST_BYTES = 50_000_000  # of a figure
_CLOSED = "the model is being unloaded; try again"
ATTEMPTS = 2  # for a figure whose process ended before it knew of it


class Drawings:
    """One process that draws, a figure at a time. Every method may be called from several threads at once.

    Args:
        seconds: processor time of one figure, and twice that by the clock.
    """

    def __init__(self, *, seconds: float = 5.0, program: Sequence[str] = PROGRAM) -> None:
        self._seconds = seconds
        self._program = (*program, str(seconds))
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._closed = False
        self._folders: list[PlotFolder] = []  # one at most
        self._alive: list[Child] = []  # one at most
        self._end = weakref.finalize(self, _end_all, self._alive, self._folders)  # also when nobody closes it

    def figure(self, image: Image.Image, explanation: Explanation, maker: Maker, form: str = "png") -> bytes:
        """The figure of an explanation as a file of one of `model.plots.FORMS`; as `model.figure.draw`.

        Raises:
            FiguresUnavailable: the plotting library is not installed.
            DrawingUnavailable: no process can be started, it did not finish in time, or this is closed.
            DrawingFailed: the figure cannot be drawn.
        """
        plots.require()
        data = Commission(reduced(image), explanation, maker, form).pack()
        if not self._turn.acquire(timeout=TURN_S):
            raise DrawingUnavailable("others' figures are being drawn; try again", retry_after=int(TURN_S))
        try:
            return self._draw(data)
        finally:
            self._turn.release()

    def processes(self) -> tuple[int, ...]:
        """The ids of the processes that live at present."""
        with self._lock:
            return tuple(child.pid for child in self._alive)

    def close(self) -> None:
        """End the process; whoever waits for a figure or a turn gets a `DrawingUnavailable` at once. May be called twice."""
        with self._lock:
            self._closed = True
            for child in self._alive:
                child.kill()  # who waits for it sees it end
        with self._turn:
            _end_all(self._alive, self._folders)

    def _draw(self, data: bytes) -> bytes:
        for _ in range(ATTEMPTS):
            child = self._take()
            deadline = time.monotonic() + PATIENCE * self._seconds
            try:
                child.hand_over(data, deadline)
            except (Lost, Late, OSError):
                self._drop(child)  # not the figure's doing: it did not have it yet
                continue
            except BaseException:
                self._drop(child)
                raise
            return self._receive(child, deadline)
        raise DrawingUnavailable("the process that draws figures ends before it begins; try again")

    def _receive(self, child: Child, deadline: float) -> bytes:
        try:
            answer = _checked(child.message(deadline))
            file = child.read(answer.value, deadline) if answer.kind == DRAWN else b""
        except (Lost, Late, Rubbish, OSError, MemoryError) as error:
            if isinstance(error, Lost):
                child.let_end()
            self._drop(child)
            if self._closed:
                raise DrawingUnavailable(_CLOSED) from error
            logger.warning("drawing a figure failed: the process %s", child.end_in_words())
            raise DrawingUnavailable("the figure was not finished in time; try again") from error
        except BaseException:  # an interrupt, say: the rest of the answer would be taken for the next one
            self._drop(child)
            raise
        if child.images >= MOST_FIGURES:
            self._drop(child)
        if answer.kind == FAILED:
            raise DrawingFailed(f"the figure could not be drawn: {answer.text}")
        return file

    def _take(self) -> Child:
        with self._lock:
            if self._closed:
                raise DrawingUnavailable(_CLOSED)
            children = tuple(self._alive)
        for child in children:
            if child.is_fresh():
                return child
            self._drop(child)
        return self._start()

    def _start(self) -> Child:
        try:
            if not self._folders:
                self._folders.append(PlotFolder())
            folder = str(self._folders[0].path)
            child = Child((*self._program, folder), environment={"MPLCONFIGDIR": folder})
        except (OSError, MemoryError) as error:  # no memory, processes or file descriptors left, or no folder to write to
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise DrawingUnavailable(f"the process that draws figures cannot be started: {reason}; try again") from error
        with self._lock:
            self._alive.append(child)
            if self._closed:
                child.kill()
        try:
            child.expect(READY, time.monotonic() + START_S)
        except (Lost, Late, Rubbish, OSError, MemoryError) as error:
            self._drop(child)
            if self._closed:
                raise DrawingUnavailable(_CLOSED) from error
            logger.error("the process that draws figures did not start: it %s", child.end_in_words())
            raise DrawingUnavailable("the process that draws figures does not start; try again") from error
        except BaseException:  # nobody else knows of it
            self._drop(child)
            raise
        return child

    def _drop(self, child: Child) -> None:
        child.kill()
        child.wait()
        with self._lock:
            if child in self._alive:
                self._alive.remove(child)


def _checked(answer: Answer) -> Answer:
    """Hold the length of a figure against the limit before any memory is made for it."""
    if answer.kind not in (DRAWN, FAILED) or answer.value > MOST_BYTES:
        raise Rubbish(f"kind {answer.kind!r} with {answer.value} bytes")
    return answer


def _end_all(children: list[Child], folders: list[PlotFolder]) -> None:
    while children:
        child = children.pop()
        child.kill()
        child.wait()
    while folders:
        folders.pop().remove()
