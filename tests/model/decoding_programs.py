"""Programs that a guard may be given instead of its own: each begins as it should, then goes wrong in one way.

They import nothing of this project, so that they start at once.
"""

from __future__ import annotations

import sys

from model.wire import DAMAGED, PICTURE, READY, TAKEN, Answer

_START = f"""
import os, resource, signal, sys, time
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

def say(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()

def image():
    head = sys.stdin.buffer.read(8)
    if len(head) < 8:
        sys.exit(0)
    data = sys.stdin.buffer.read(int.from_bytes(head, "big"))
    say({Answer(TAKEN).pack()!r})
    return data
"""
_READY = f"\nsay({Answer(READY).pack()!r})\n"


def program(body: str) -> tuple[str, ...]:
    """The command of a program that does this from the start."""
    return (sys.executable, "-S", "-E", "-c", _START + body)


def ready(body: str) -> tuple[str, ...]:
    """The command of a program that says it is ready, then does this."""
    return program(_READY + body)


def taking(body: str) -> tuple[str, ...]:
    """The command of a program that takes an image, then does this."""
    return ready("image()\n" + body)


def saying(answer: Answer, pixels: bytes = b"") -> tuple[str, ...]:
    """The command of a program that answers this to its first image, then waits for the next."""
    return taking(f"say({answer.pack() + pixels!r})\nimage()")


def working(more: str = "") -> str:
    """Gives pictures of two pixels: the first three bytes of the image, and the process's number below 2**24."""
    return f"""
while True:
    data = image(){more}
    say({Answer(PICTURE, 2, 1).pack()!r} + data[:3] + (os.getpid() % 2**24).to_bytes(3, "big"))
"""


WORKING = ready(working())
FRAGILE = ready(working("\n    if data == b'bad': os.abort()"))
CHATTY = ready(working().rstrip() + "\n    say(b'!')\n")  # a byte more than it was asked for

ABORTING = taking("os.abort()")
FAULTING = taking("os.kill(os.getpid(), signal.SIGSEGV)\ntime.sleep(60)")
KILLED = taking("os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)")  # as the system does where memory runs out
HANGING = taking("time.sleep(60)")
GREEDY = taking("""
resource.setrlimit(resource.RLIMIT_AS, (300_000_000, 300_000_000))
held = []
while True:
    held.append(bytearray(10_000_000))
""")
DRIPPING = taking(f"say({Answer(PICTURE, 9, 9).pack()!r})\ntime.sleep(60)")
ENDING_SHORT = taking(f"say({Answer(PICTURE, 9, 9).pack() + bytes(242)!r})")

RUBBISH = {
    "zeros": taking("say(bytes(500))\nimage()"),
    "bomb": saying(Answer(PICTURE, 60_000, 60_000)),
    "empty": saying(Answer(PICTURE, 0, 7)),
    "long": saying(Answer(PICTURE, 70_000, 1)),
    "markup": saying(Answer(DAMAGED, text="<b>\n")),
    "kind": saying(Answer(READY)),
}

# None of these ever has an image.
CLOSING_EARLY = ready("")
DEAF = ready("time.sleep(60)")
ENDING = program("sys.exit(3)")
SILENT = program("time.sleep(60)")
BABBLING = program("say(b'Warning: something\\n' * 9)\ntime.sleep(60)")


def once(flag: str) -> tuple[str, ...]:
    """Ends before it has its image the first time, and works from then on; `flag` is a file to remember that by."""
    return ready(f"flag = {flag!r}\nif not os.path.exists(flag):\n    open(flag, 'w').close()\n    sys.exit(0)\n{working()}")
