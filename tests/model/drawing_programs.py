"""Programs that `Drawings` may be given instead of its own: each begins as it should, then goes wrong in one way."""

from __future__ import annotations

from model.wire import DRAWN, FAILED, PICTURE, Answer
from tests.model.decoding_programs import program, ready, taking

FILE = b"\x89PNG a figure"
WORKING = ready(f"""
while True:
    image()
    say({Answer(DRAWN, value=len(FILE) + 4).pack() + FILE!r} + os.getpid().to_bytes(4, "big"))
""")
ABORTING = taking("os.abort()")
NEVER_READY = program("time.sleep(60)")
HANGING = taking("time.sleep(60)")
DRIPPING = taking(f"say({Answer(DRAWN, value=900).pack()!r} + bytes(9))\ntime.sleep(60)")
FAILING = ready(f"while True:\n    image()\n    say({Answer(FAILED, text='KeyError').pack()!r})\n")
RUBBISH = {
    "zeros": taking("say(bytes(500))\nimage()"),
    "bomb": taking(f"say({Answer(DRAWN, value=10**15).pack()!r})\nimage()"),
    "kind": taking(f"say({Answer(PICTURE, 2, 2).pack()!r})\nimage()"),
}
CLOSING_EARLY = ready("")
ENDING = program("sys.exit(3)")
CHATTY = ready(f"""
while True:
    image()
    say({Answer(DRAWN, value=len(FILE) + 4).pack() + FILE!r} + os.getpid().to_bytes(4, "big") + b"!")
""")
