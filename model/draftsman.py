"""The process that draws figures, so that the interpreter of the service is not held meanwhile.

python -P -B -m model.draftsman SECONDS FOLDER     a commission in, a file out, again and again, until standard input ends

It imports neither a network nor an engine. What it is asked comes from the service, but the words in it may be a stranger's.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from typing import BinaryIO

from model.commission import Commission
from model.decoder import confine, limit_time
from model.figure import draw
from model.wire import DRAWN, FAILED, LENGTH, READY, TAKEN, Answer

MEMORY_BYTES = 2_000_000_000  # of address space; it takes a quarter of that
_FILE_BYTES = 5_000_000  # the plotting library's list of fonts
_DESCRIPTORS = 64  # it asks another program for the fonts there are


def main() -> int:
    """Serve until standard input ends. The arguments are the processor time of one figure, in seconds, and the plotting library's
    folder: whoever made it was killed when standard input ends, so it is removed here.
    """
    seconds = float(sys.argv[1])
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print do so into nothing: what was standard output carries answers alone
    confine(MEMORY_BYTES, file_bytes=_FILE_BYTES, descriptors=_DESCRIPTORS)
    _import()
    with suppress(BrokenPipeError):  # nobody waits any more
        _send(out, Answer(READY))
        while (head := sys.stdin.buffer.read(LENGTH.size)) and len(head) == LENGTH.size:
            (length,) = LENGTH.unpack(head)
            data = sys.stdin.buffer.read(length)
            if len(data) < length:
                break
            _send(out, Answer(TAKEN))
            limit_time(seconds)
            _answer(out, data)
            limit_time(0)
    with suppress(BrokenPipeError):
        out.close()
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    return 0


def _import() -> None:
    """What takes long is done before anybody waits. The user's own style is not the service's."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure

    matplotlib.rcdefaults()


def _answer(out: BinaryIO, data: bytes) -> None:
    try:
        asked = Commission.unpack(data)
        file = draw(asked.image, asked.explanation, asked.maker, asked.form)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one figure, the next may be in order
        _send(out, Answer(FAILED, text=type(error).__name__))
        return
    _send(out, Answer(DRAWN, value=len(file)))
    out.write(file)
    out.flush()


def _send(out: BinaryIO, answer: Answer) -> None:
    out.write(answer.pack())
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
