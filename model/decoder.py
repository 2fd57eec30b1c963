"""The process that decodes images which may bring a decoder down: it has little to lose and can be killed at any time.

python -P -m model.decoder ORDER     an image in, pixels or an error out, again and again, until standard input ends

It starts small: neither a network nor an engine is imported, and numpy only for samples of more than eight bits.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from model.errors import ImageError
from model.image import decode
from model.wire import LENGTH, NO_MEMORY, PATIENCE, PICTURE, READY, TAKEN, Answer, Order, answer_of, strips

# Added to the nice value of whoever started it. Not the lowest priority there is: a thread of the service waits for it, and on a
# busy machine good images would come too late.
YIELDING = 5
GRACE_S = 1.0  # beyond that, for whoever waits to notice first
_DESCRIPTORS = 16  # open files: three of its own, and those of a library being imported


def main() -> int:
    """Serve until standard input ends."""
    order = Order.load(sys.argv[1])
    # Libraries that print do so into nothing: what was standard output carries answers alone.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    confine(order.memory_bytes)
    with suppress(BrokenPipeError):  # nobody waits any more
        _send(out, Answer(READY))
        while (head := sys.stdin.buffer.read(LENGTH.size)) and len(head) == LENGTH.size:
            (length,) = LENGTH.unpack(head)
            data = sys.stdin.buffer.read(length)
            if len(data) < length:
                break
            _send(out, Answer(TAKEN))
            limit_time(order.seconds)
            answer = _decode(out, data, order)
            limit_time(0)
            if answer.kind == NO_MEMORY:  # what is left of it may be too torn to serve others
                break
    with suppress(BrokenPipeError):
        out.close()
    return 0


def confine(memory_bytes: int, *, file_bytes: int = 0, descriptors: int = _DESCRIPTORS) -> None:
    """Give up what decoding does not need. What a system cannot limit stays as it is: the time limits hold everywhere."""
    with suppress(OSError):  # Linux: where memory runs out this process goes, not the service
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(OSError):
        os.nice(YIELDING)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    _lower(resource.RLIMIT_NOFILE, descriptors)
    _lower(resource.RLIMIT_AS, memory_bytes)


def _lower(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with suppress(ValueError, OSError):  # macOS knows no limit of address space
        resource.setrlimit(kind, (least, least))


def limit_time(seconds: float) -> None:
    """Have the system end this process after so much processor time, or twice that by the clock; 0 lifts it.

    By signals that nobody handles: native code that never returns to the interpreter ends as well, and so it does when whoever
    started it is gone.
    """
    for timer, number, limit_s in (
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, PATIENCE * seconds + GRACE_S if seconds else 0),
    ):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        signal.setitimer(timer, limit_s)


def _decode(out: BinaryIO, data: bytes, order: Order) -> Answer:
    try:
        image, _ = decode(data, order.limits)
        answer = Answer(PICTURE, image.width, image.height)
    except ImageError as error:
        answer = answer_of(error)
    _send(out, answer)
    if answer.kind == PICTURE:
        _send_pixels(out, image)
    return answer


def _send(out: BinaryIO, answer: Answer) -> None:
    out.write(answer.pack())
    out.flush()


def _send_pixels(out: BinaryIO, image: Image.Image) -> None:
    for top, bottom in strips(*image.size):
        out.write(image.crop((0, top, image.width, bottom)).tobytes())
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
