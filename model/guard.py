"""Images decoded in a process of their own, for formats whose decoders have a long history of faults.

A decoder that crashes, takes too much memory or time, or answers rubbish costs one image; the process is replaced and nothing
else notices. Such processes are started when the first such image comes, kept for the next ones, and end with this one: their
standard input ends then, and while they work the system's timers end them. How an image is decoded is in `model.decoder`.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
import weakref
from collections.abc import Sequence

from PIL import Image

from model.child import Child, Late, Lost
from model.device import cpu_limit
from model.errors import DecoderUnavailable, ImageError, ImageOverLimit, ImageUndecodable
from model.image import ImageLimits
from model.wire import READY, Order, Rubbish

logger = logging.getLogger("sknet.model")

PROGRAM = (sys.executable, "-P", "-B", "-m", "model.decoder")
START_S = 12.0  # until a process is ready, on a machine that has other things to do
BEGIN_S = 20.0  # until a process has the image, whatever became of others before it
MOST_IMAGES = 500  # of one process, so that what native code leaks does not add up
ATTEMPTS = 3  # for an image whose process ended before it had the image


class Guard:
    """Decoding processes for one model. Every method may be called from several threads at once.

    Args:
        limits: of the images. seconds: processor time of one image, and twice that by the clock. memory_bytes: address space of
            a process. most: processes at once; as many as there are processors where not given.
    """

    def __init__(
        self,
        limits: ImageLimits,
        *,
        seconds: float = 5.0,
        memory_bytes: int = 1_500_000_000,
        most: int | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._order = Order(limits, seconds, memory_bytes)
        self._program = tuple(program)
        self._room = threading.BoundedSemaphore(most or cpu_limit()[0])
        self._lock = threading.Lock()
        self._closed = False
        self._idle: list[Child] = []
        self._alive: set[Child] = set()
        self._end = weakref.finalize(self, _end_all, self._alive)  # also when nobody closes it

    def decode(self, name: str, data: bytes) -> Image.Image:
        """Decode an image of format `name` to an upright RGB image.

        Raises:
            ImageError: as `model.image.decode`; and where decoding it crashed, or took too much memory or time.
            DecoderUnavailable: no process can be started, or this guard is closed.
        """
        with self._room:
            deadline = time.monotonic() + BEGIN_S
            for attempt in range(ATTEMPTS):
                if attempt and time.monotonic() >= deadline:
                    break
                child = self._take(deadline)
                try:
                    child.hand_over(data, deadline)
                except (Lost, Late, OSError):
                    self._drop(child)  # not the image's doing: it did not have it yet
                    continue
                except BaseException:
                    self._drop(child)
                    raise
                return self._receive(child, name, len(data))
        raise DecoderUnavailable("the processes that decode such images end before they begin; try again")

    def processes(self) -> tuple[int, ...]:
        """The ids of the processes that live at present."""
        with self._lock:
            return tuple(child.pid for child in self._alive)

    def close(self) -> None:
        """End all processes; whoever waits for one gets a `DecoderUnavailable`."""
        with self._lock:
            self._closed = True
            idle = tuple(self._idle)
            self._idle.clear()
            for child in self._alive:
                child.kill()  # who waits for one sees it end, and clears it away
        for child in idle:
            self._drop(child)

    def _receive(self, child: Child, name: str, length: int) -> Image.Image:
        try:
            image = child.receive(self._order)
        except ImageError:
            self._give_back(child)
            raise
        except (Lost, Late, Rubbish, OSError, MemoryError) as error:
            if isinstance(error, Lost):
                child.let_end()
            self._drop(child)
            raise self._reason(child, name, length, error) from error
        except BaseException:  # an interrupt, say: the rest of the answer would be taken for the next one
            self._drop(child)
            raise
        self._give_back(child)
        return image

    def _take(self, deadline: float) -> Child:
        while True:
            with self._lock:
                if self._closed:
                    raise DecoderUnavailable("the model is being unloaded; try again")
                if not self._idle:
                    break
                child = self._idle.pop()  # the last one used: the others may be paged out
            if child.is_fresh():
                return child
            self._drop(child)
        return self._start(deadline)

    def _start(self, deadline: float) -> Child:
        try:
            child = Child(self._program, self._order)
        except (OSError, MemoryError) as error:  # no memory, processes or file descriptors left
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise DecoderUnavailable(f"the process that decodes such images cannot be started: {reason}; try again") from error
        with self._lock:
            closed = self._closed
            if not closed:
                self._alive.add(child)
        try:
            if closed:
                raise Lost("closed")
            child.expect(READY, min(deadline, time.monotonic() + START_S))
        except (Lost, Late, Rubbish, OSError, MemoryError) as error:
            self._drop(child)
            logger.error("the decoding process did not start: it %s", child.end_in_words())
            raise DecoderUnavailable("the process that decodes such images does not start; try again") from error
        except BaseException:  # nobody else knows of it
            self._drop(child)
            raise
        return child

    def _give_back(self, child: Child) -> None:
        with self._lock:
            if not self._closed and child.images < MOST_IMAGES:
                self._idle.append(child)
                return
        self._drop(child)

    def _drop(self, child: Child) -> None:
        child.kill()
        child.wait()
        with self._lock:
            self._alive.discard(child)

    def _reason(self, child: Child, name: str, length: int, error: Exception) -> Exception:
        """What to tell of an image whose process gave no answer."""
        if self._closed:
            return DecoderUnavailable("the model is being unloaded; try again")
        logger.warning("decoding a %s image of %d bytes failed: the process %s", name, length, child.end_in_words())
        seconds, most, ended = self._order.seconds, self._order.memory_bytes, child.ended_by
        if isinstance(error, Late) or ended in (signal.SIGPROF, signal.SIGALRM):
            return ImageOverLimit(f"decoding the {name} image takes more than {seconds:g} seconds", seconds)
        if isinstance(error, MemoryError) or ended == signal.SIGKILL:  # by the system, where memory ran out
            return ImageOverLimit(f"decoding the {name} image takes more than {most} bytes of memory", most)
        return ImageUndecodable(f"the {name} image brought its decoder down")


def _end_all(children: set[Child]) -> None:
    for child in tuple(children):
        child.kill()
        child.wait()
