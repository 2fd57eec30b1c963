"""Programs that a guard may be given instead of its own: each begins as it should, then goes wrong in one way."""

from __future__ import annotations

import sys

_START = """
import os, resource, signal, struct, sys, time
from model.wire import *
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
order = Order.load(sys.argv[1])
out, source = sys.stdout.buffer, sys.stdin.buffer

def say(data):
    out.write(data)
    out.flush()

def image():
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        sys.exit(0)
    return source.read(LENGTH.unpack(head)[0])
"""

_TAKE = """
say(Answer(READY).pack())
data = image()
say(Answer(TAKEN).pack())
"""

# Gives a picture of two pixels: the first three bytes of the image, and this process's number below 2**24.
_WORK = """
say(Answer(READY).pack())
while True:
    data = image()
    say(Answer(TAKEN).pack())
    say(Answer(PICTURE, 2, 1).pack() + data[:3] + struct.pack(">I", os.getpid() % 2**24)[1:])
"""


def program(body: str) -> tuple[str, ...]:
    """The command of a program that does this."""
    return (sys.executable, "-c", _START + body)


def taking(body: str) -> tuple[str, ...]:
    """The command of a program that takes an image, then does this."""
    return program(_TAKE + body)


WORKING = program(_WORK)
ABORTING = taking("os.abort()")
FAULTING = taking("os.kill(os.getpid(), signal.SIGSEGV)\ntime.sleep(60)")
KILLED = taking("os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)")  # as the system does where memory runs out
HANGING = taking("time.sleep(60)")
GREEDY = taking("""
from model.decoder import confine
confine(order.memory_bytes)
held = []
while True:
    held.append(bytearray(10_000_000))
""")
CLOSING_EARLY = program("say(Answer(READY).pack())")
ENDING = program("sys.exit(3)")
SILENT = program("time.sleep(60)")
DEAF = program("say(Answer(READY).pack())\ntime.sleep(60)")
BABBLING = program("say(b'Warning: something\\n' * 9)\ntime.sleep(60)")
CHATTY = program(_WORK.replace("[1:])", "[1:] + b'!')"))  # a byte more than it was asked for


def once(flag: str) -> tuple[str, ...]:
    """Ends before it has its image the first time, and works from then on; `flag` is a file to remember that by."""
    ends = "if not os.path.exists(flag):\n    open(flag, 'w').close()\n    say(Answer(READY).pack())\n    sys.exit(0)"
    return program(f"flag = {flag!r}\n{ends}{_WORK}")
