"""SIGHUP, in a process of its own: held back from the start, it comes to who listens, and ends nobody."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import asyncio, os, signal, subprocess, sys
from app import hangup
hangup.hold_back()
os.kill(os.getpid(), signal.SIGHUP)  # before anybody listens
heard = 0
def hear():
    global heard
    heard += 1
async def main():
    hangup.listen(hear)
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.05)
    hangup.hold_back()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    hangup.let_through()
    child.send_signal(signal.SIGHUP)
    child.communicate(b"x")
    return child.returncode
print(asyncio.run(main()), heard)
"""


def test_it_is_heard_when_somebody_listens_and_ends_nobody() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("0 2\n", "", 0)
