"""What large blocks took is given back when they are freed, also below others that stay. Linux with glibc is what serves."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

import pytest

from model import manager
from model.memory import give_back_large_blocks

# Freeing a block of 31 MiB has glibc count those of 16 MiB as small. The last, small one holds all below it in the heap.
KEPT = """
import numpy as np
from model.memory import give_back_large_blocks

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

{call}
first = np.ones(31 << 20, np.uint8)
del first
before = resident()
blocks = [np.ones(16 << 20, np.uint8) for _ in range(10)]
last = np.ones(100_000, np.uint8)
del blocks
print(resident() - before)
"""


def kept(call: str) -> int:
    code = KEPT.format(call=call)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60).stdout)


def test_large_blocks_are_given_back() -> None:
    assert kept("pass") > 100_000_000  # so that the next line could fail
    assert kept("assert give_back_large_blocks()") < 20_000_000


def test_another_c_library_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert give_back_large_blocks() is False


def test_a_model_is_loaded_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def asked(*_: Any) -> None:
        raise Asked

    monkeypatch.setattr(manager, "give_back_large_blocks", asked)
    with pytest.raises(Asked):
        manager.load(manager.LoadRequest(checkpoint="bundled:cifar10"))
