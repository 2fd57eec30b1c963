"""Threads that work for the event loop without getting in its way. Knows nothing of what they do."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

# Added to a thread's nice value. With every core at work on images the loop waited for its turn as one of many; work that is a
# little less urgent lets it in at once, so that refusals and probes are answered in time.
YIELDING = 5

MANY = 2_000  # values, of which each takes about a microsecond to write

NAMES = ("load", "abandoned", "decode", "engine", "draw")  # what the names of threads begin with that may be inside native code

ValueT = TypeVar("ValueT")


def pool(threads: int, name: str, *, yielding: int = YIELDING) -> ThreadPoolExecutor:
    """A pool whose threads yield to the event loop."""
    return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=yield_to_the_loop, initargs=(yielding,))


def yield_to_the_loop(yielding: int = YIELDING) -> None:
    """Lower the priority of the calling thread, and of those it will start. On Linux only: elsewhere it is the process's."""
    if sys.platform == "linux":
        with suppress(OSError):  # as it was, then: a sandbox may forbid it
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + yielding))


def left_behind() -> bool:
    """Whether a thread of ours is still at work: a load that was given up, or a call that never came back."""
    return any(thread.name.startswith(NAMES) for thread in threading.enumerate())


async def written(write: Callable[[], ValueT], values: int) -> ValueT:
    """What `write` makes of so many values; in a thread where they are many, since the loop would stand still for as long."""
    return await asyncio.to_thread(write) if values > MANY else write()


async def beside(make: Callable[[], ValueT], dispose: Callable[[ValueT], None]) -> ValueT:
    """Run `make` in a daemon thread that yields to the loop: a download that hangs must not hold up the end of the process.

    Given up meanwhile, what comes in the end is disposed of. Libraries start their own threads in there, which inherit its
    priority.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[ValueT] = loop.create_future()

    def settle(made: list[ValueT], error: BaseException | None) -> None:
        if done.cancelled():
            for value in made:
                dispose(value)
        elif error is not None:
            done.set_exception(error)
        else:
            done.set_result(made[0])

    def work() -> None:
        yield_to_the_loop()
        made: list[ValueT] = []
        failure = None
        try:
            made.append(make())
        except BaseException as error:  # noqa: BLE001 - whatever it is goes to whoever waits
            failure = error
        with suppress(RuntimeError):  # the loop may be gone by now
            loop.call_soon_threadsafe(settle, made, failure)

    threading.Thread(target=work, name="load", daemon=True).start()
    return await done
