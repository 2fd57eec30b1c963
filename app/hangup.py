"""SIGHUP: asks a service to load its checkpoint once more. Held back until somebody listens, since its default ends a process.

So are other signals where they are named, whose default is the same.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable

_HANGUP = {signal.SIGHUP} if hasattr(signal, "SIGHUP") else set()  # Windows has none


def hold_back(*others: signal.Signals) -> None:
    """Have it wait, in this thread and those it starts, and in the processes that it starts from now on."""
    if _HANGUP:
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANGUP.union(others))


def let_through(*others: signal.Signals) -> None:
    """Have it come to this thread, now if it waits."""
    if _HANGUP:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANGUP.union(others))


def listen(heard: Callable[[], None]) -> None:
    """Call this, in the running loop, whenever it comes or if it waits. Only the main thread hears signals: elsewhere nothing."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _HANGUP:
        asyncio.get_running_loop().add_signal_handler(number, heard)
    let_through()
