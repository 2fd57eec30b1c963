"""Images decoded in a process of their own, for formats whose decoders have a long history of faults.

A decoder that crashes, takes too much memory or time, or answers rubbish costs one image; the process is replaced and nothing
else notices. Such processes are started when the first such image comes, kept for the next ones, and end with this one: their
standard input ends then, and while they work the system's timers end them. How an image is decoded is in `model.decoder`.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress

from PIL import Image

from model.device import cpu_limit
from model.errors import DecoderUnavailable, ImageError, ImageOverLimit, ImageUndecodable
from model.image import ImageLimits
from model.wire import (
    HEAD_BYTES,
    LENGTH,
    NO_MEMORY,
    PATIENCE,
    PICTURE,
    READY,
    TAKEN,
    Answer,
    Order,
    Rubbish,
    check_size,
    error_of,
    strips,
    text_bytes,
    unpack,
)

logger = logging.getLogger("sknet.model")

PROGRAM = (sys.executable, "-P", "-B", "-m", "model.decoder")
START_S = 30.0  # until a process is ready, on a machine that has other things to do
HAND_OVER_S = 10.0  # until it has the image
MOST_IMAGES = 500  # of one process, so that what native code leaks does not add up
ATTEMPTS = 3  # for an image whose process ended before it had the image
_PIPE_BYTES = 1 << 20  # instead of 64 KiB: fewer turns to hand the pixels over
_LAST_S = 1.0  # for a process that closed its pipe to end as it will


class _Lost(Exception):
    """A process that ended, or does not do what it should."""


class _Late(Exception):
    """A process that did not answer in time."""


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
        self._idle: list[_Helper] = []
        self._alive: set[_Helper] = set()
        self._end = weakref.finalize(self, _end_all, self._alive)  # also when nobody closes it

    def decode(self, name: str, data: bytes) -> Image.Image:
        """Decode an image of format `name` to an upright RGB image.

        Raises:
            ImageError: as `model.image.decode`; and where decoding it crashed, or took too much memory or time.
            DecoderUnavailable: no process can be started, or this guard is closed.
        """
        with self._room:
            for _ in range(ATTEMPTS):
                helper = self._take()
                try:
                    helper.hand_over(data)
                except (_Lost, _Late, OSError):
                    self._drop(helper)  # not the image's doing: it did not have it yet
                    continue
                return self._receive(helper, name, len(data))
        raise DecoderUnavailable("the processes that decode such images end before they begin; try again")

    def processes(self) -> tuple[int, ...]:
        """The ids of the processes that live at present."""
        with self._lock:
            return tuple(helper.pid for helper in self._alive)

    def close(self) -> None:
        """End all processes; whoever waits for one gets a `DecoderUnavailable`."""
        with self._lock:
            self._closed = True
            idle = tuple(self._idle)
            self._idle.clear()
            for helper in self._alive:
                helper.kill()  # who waits for one sees it end, and clears it away
        for helper in idle:
            self._drop(helper)

    def _receive(self, helper: _Helper, name: str, length: int) -> Image.Image:
        try:
            image = helper.receive(self._order)
        except ImageError:
            self._give_back(helper)
            raise
        except (_Lost, _Late, Rubbish, OSError, MemoryError) as error:
            if isinstance(error, _Lost):
                helper.let_end()
            self._drop(helper)
            raise self._reason(helper, name, length, error) from error
        self._give_back(helper)
        return image

    def _take(self) -> _Helper:
        while True:
            with self._lock:
                if self._closed:
                    raise DecoderUnavailable("the model is being unloaded; try again")
                if not self._idle:
                    break
                helper = self._idle.pop()  # the last one used: the others may be paged out
            if helper.is_fresh():
                return helper
            self._drop(helper)
        return self._start()

    def _start(self) -> _Helper:
        try:
            helper = _Helper(self._program, self._order)
        except OSError as error:  # no memory, processes or file descriptors left
            reason = error.strerror or type(error).__name__
            raise DecoderUnavailable(f"the process that decodes such images cannot be started: {reason}; try again") from error
        with self._lock:
            closed = self._closed
            if not closed:
                self._alive.add(helper)
        try:
            if closed:
                raise _Lost("closed")
            helper.expect(READY, time.monotonic() + START_S)
        except (_Lost, _Late, Rubbish) as error:
            self._drop(helper)
            logger.error("the decoding process did not start: it %s", helper.end_in_words())
            raise DecoderUnavailable("the process that decodes such images does not start; try again") from error
        return helper

    def _give_back(self, helper: _Helper) -> None:
        with self._lock:
            if not self._closed and helper.images < MOST_IMAGES:
                self._idle.append(helper)
                return
        self._drop(helper)

    def _drop(self, helper: _Helper) -> None:
        helper.kill()
        helper.wait()
        with self._lock:
            self._alive.discard(helper)

    def _reason(self, helper: _Helper, name: str, length: int, error: Exception) -> Exception:
        """What to tell of an image whose process gave no answer."""
        if self._closed:
            return DecoderUnavailable("the model is being unloaded; try again")
        logger.warning("decoding a %s image of %d bytes failed: the process %s", name, length, helper.end_in_words())
        seconds, most, ended = self._order.seconds, self._order.memory_bytes, helper.ended_by
        if isinstance(error, _Late) or ended in (signal.SIGPROF, signal.SIGALRM):
            return ImageOverLimit(f"decoding the {name} image takes more than {seconds:g} seconds", seconds)
        if isinstance(error, MemoryError) or ended == signal.SIGKILL:  # by the system, where memory ran out
            return ImageOverLimit(f"decoding the {name} image takes more than {most} bytes of memory", most)
        return ImageUndecodable(f"the {name} image brought its decoder down")


class _Helper:
    """One process, and both pipes to it."""

    def __init__(self, program: Sequence[str], order: Order) -> None:
        # The same libraries as here, and nothing else of the environment: it may hold secrets.
        places = os.pathsep.join(os.path.abspath(place) for place in sys.path if place)  # noqa: PTH100 - text in, text out
        self._process = subprocess.Popen(  # noqa: S603 - closes every other descriptor; a session of its own: no Ctrl+C
            [*program, order.dump()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={"PYTHONPATH": places, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._in, self._out):
            os.set_blocking(pipe, False)
            with suppress(OSError, AttributeError):  # Linux, and not beyond what a user may have
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._killed = False
        self.images = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_fresh(self) -> bool:
        """Whether it lives and has said nothing that it was not asked."""
        return self._process.poll() is None and not _ready(self._out, select.POLLIN, 0)

    def hand_over(self, data: bytes) -> None:
        """Send an image, until the process says that it has it.

        Raises:
            _Lost, _Late, OSError: it never had the image, whatever the reason.
        """
        deadline = time.monotonic() + HAND_OVER_S
        for part in (LENGTH.pack(len(data)), data):
            left = memoryview(part)
            while left:
                _await(self._in, select.POLLOUT, deadline)
                left = left[os.write(self._in, left[:_PIPE_BYTES]) :]
        try:
            self.expect(TAKEN, deadline)
        except Rubbish as error:
            raise _Lost("no word that it has the image") from error
        self.images += 1

    def receive(self, order: Order) -> Image.Image:
        """The picture of the image handed over.

        Raises:
            ImageError: as the process says.
            _Lost, _Late, Rubbish: it ended, was too slow, or said nothing that makes sense.
            MemoryError: it says that it had too little, or there is none here.
        """
        deadline = time.monotonic() + PATIENCE * order.seconds
        answer = self._message(deadline)
        if answer.kind == NO_MEMORY:
            raise MemoryError
        if answer.kind != PICTURE:
            raise error_of(answer)
        check_size(answer, order.limits)
        width, height = answer.width, answer.height
        image = Image.new("RGB", (width, height))
        for top, bottom in strips(width, height):
            pixels = self._read(3 * width * (bottom - top), deadline)
            image.paste(Image.frombytes("RGB", (width, bottom - top), pixels), (0, top))
        return image

    def expect(self, kind: bytes, deadline: float) -> None:
        """Read a message that must be of this kind."""
        if (answer := self._message(deadline)).kind != kind:
            raise Rubbish(f"kind {answer.kind!r} instead of {kind!r}")

    def let_end(self) -> None:
        """Give it a moment to end by itself, so that the way it did can be told."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_S)

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._killed = True
            self._process.kill()

    def wait(self) -> None:
        """Clear away what has ended or was killed."""
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    @property
    def ended_by(self) -> int | None:
        """The signal that ended it, unless that came from here."""
        returned = self._process.returncode
        return -returned if returned is not None and returned < 0 and not self._killed else None

    def end_in_words(self) -> str:
        """How it ended."""
        if self._killed:
            return "was killed"
        return f"ended by signal {self.ended_by}" if self.ended_by else f"ended with status {self._process.returncode}"

    def _message(self, deadline: float) -> Answer:
        head = self._read(HEAD_BYTES, deadline)
        return unpack(head, self._read(text_bytes(head), deadline))

    def _read(self, count: int, deadline: float) -> bytes:
        got = bytearray(count)
        view = memoryview(got)
        while view:
            _await(self._out, select.POLLIN, deadline)
            read = os.readv(self._out, [view])
            if not read:
                raise _Lost("end of its output")
            view = view[read:]
        return bytes(got)


def _await(pipe: int, event: int, deadline: float) -> None:
    if not _ready(pipe, event, deadline - time.monotonic()):
        raise _Late


def _ready(pipe: int, event: int, seconds: float) -> bool:
    """Whether the pipe is ready within so long, or has lost its other end, which the next turn will tell."""
    poll = select.poll()
    poll.register(pipe, event)
    return bool(poll.poll(max(0, math.ceil(seconds * 1000))))


def _end_all(helpers: set[_Helper]) -> None:
    for helper in tuple(helpers):
        helper.kill()
        helper.wait()
