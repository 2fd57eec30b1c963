"""One working process, and the pipes to it: an image goes in, pixels or an error come out, each within its time.

What comes out is read as if a stranger had sent it: see `model.wire`. Who keeps such processes is in `model.guard`, which has
images decoded, and in `model.drawing`, which has figures drawn.
"""

from __future__ import annotations

import fcntl
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from PIL import Image

from model.wire import (
    HEAD_BYTES,
    LENGTH,
    NO_MEMORY,
    PATIENCE,
    PICTURE,
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

HAND_OVER_S = 10.0  # until it has the image
_PIPE_BYTES = 1 << 20  # instead of 64 KiB: fewer turns to hand the pixels over
_LAST_S = 1.0  # for a process that closed its pipe to end as it will


class Lost(Exception):
    """A process that ended, or does not do what it should."""


class Late(Exception):
    """A process that did not answer in time."""


class Child:
    """One process, and both pipes to it."""

    def __init__(self, program: Sequence[str], order: Order | None = None, environment: Mapping[str, str] | None = None) -> None:
        # The same libraries as here, and nothing else of the environment: it may hold secrets.
        places = os.pathsep.join(os.path.abspath(place) for place in sys.path if place)  # noqa: PTH100 - text in, text out
        self._process = subprocess.Popen(  # noqa: S603 - closes every other descriptor; a session of its own: no Ctrl+C
            [*program, *([order.dump()] if order else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={"PYTHONPATH": places, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **(environment or {})},
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

    def hand_over(self, data: bytes, deadline: float) -> None:
        """Send an image, until the process says that it has it: within `HAND_OVER_S`, and by `deadline` of the monotonic clock.

        Raises:
            Lost, Late, OSError: it never had the image, whatever the reason.
        """
        deadline = min(deadline, time.monotonic() + HAND_OVER_S)
        for part in (LENGTH.pack(len(data)), data):
            left = memoryview(part)
            while left:
                _await(self._in, select.POLLOUT, deadline)
                left = left[os.write(self._in, left[:_PIPE_BYTES]) :]
        try:
            self.expect(TAKEN, deadline)
        except Rubbish as error:
            raise Lost("no word that it has the image") from error
        self.images += 1

    def receive(self, order: Order) -> Image.Image:
        """The picture of the image handed over.

        Raises:
            ImageError: as the process says.
            Lost, Late, Rubbish: it ended, was too slow, or said nothing that makes sense.
            MemoryError: it says that it had too little, or there is none here.
        """
        deadline = time.monotonic() + PATIENCE * order.seconds
        answer = self.message(deadline)
        if answer.kind == NO_MEMORY:
            raise MemoryError
        if answer.kind != PICTURE:
            raise error_of(answer)
        check_size(answer, order.limits)
        width, height = answer.width, answer.height
        image = Image.new("RGB", (width, height))
        for top, bottom in strips(width, height):
            pixels = self.read(3 * width * (bottom - top), deadline)
            image.paste(Image.frombytes("RGB", (width, bottom - top), pixels), (0, top))
        return image

    def expect(self, kind: bytes, deadline: float) -> None:
        """Read a message that must be of this kind."""
        if (answer := self.message(deadline)).kind != kind:
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

    def message(self, deadline: float) -> Answer:
        """Read a message.

        Raises:
            Lost, Late, Rubbish: it ended, was too slow, or said nothing that makes sense.
        """
        head = self.read(HEAD_BYTES, deadline)
        return unpack(head, self.read(text_bytes(head), deadline))

    def read(self, count: int, deadline: float) -> bytes:
        """Read so many bytes that follow a message.

        Raises:
            Lost, Late: as `message`.
        """
        got = bytearray(count)
        view = memoryview(got)
        while view:
            _await(self._out, select.POLLIN, deadline)
            read = os.readv(self._out, [view])
            if not read:
                raise Lost("end of its output")
            view = view[read:]
        return bytes(got)


def _await(pipe: int, event: int, deadline: float) -> None:
    if not _ready(pipe, event, deadline - time.monotonic()):
        raise Late


def _ready(pipe: int, event: int, seconds: float) -> bool:
    """Whether the pipe is ready within so long, or has lost its other end, which the next turn will tell."""
    poll = select.poll()
    poll.register(pipe, event)
    return bool(poll.poll(max(0, math.ceil(seconds * 1000))))
