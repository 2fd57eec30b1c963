"""Many at once, in order: so many under way, a few taken ahead, and an error in the place of what failed.

It knows nothing of images or services: what is asked of each item is a function.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from app.client_errors import ClientError

ItemT = TypeVar("ItemT")
T = TypeVar("T")
AHEAD = 16  # items taken for each that is under way: while one waits a second to be sent again, others go by


def in_order(
    items: Iterable[ItemT], ask: Callable[[ItemT, threading.Event], T], concurrency: int
) -> Iterator[tuple[ItemT, T | ClientError]]:
    """Each item with what `ask` returns or raises for it, in threads.

    The second argument of `ask` is set once nobody wants the rest. What is under way then is waited for.
    """
    left = threading.Event()

    def one(item: ItemT) -> T | ClientError:
        try:
            return ask(item, left)
        except ClientError as error:
            return error.with_traceback(None)  # which would keep all that the functions held

    waiting: deque[tuple[ItemT, Future[T | ClientError]]] = deque()
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="sknet-client")
    try:
        for item in items:
            waiting.append((item, pool.submit(copy_context().run, one, item)))  # the trace of who takes it
            while waiting and (len(waiting) >= AHEAD * concurrency or waiting[0][1].done()):
                item, future = waiting.popleft()
                yield item, future.result()
        while waiting:
            item, future = waiting.popleft()
            yield item, future.result()
    finally:
        left.set()
        pool.shutdown(cancel_futures=True)


async def in_order_async(
    items: Iterable[ItemT] | AsyncIterable[ItemT], ask: Callable[[ItemT], Awaitable[T]], concurrency: int
) -> AsyncGenerator[tuple[ItemT, T | ClientError]]:
    """The same in tasks; what is under way when nobody wants the rest is cancelled."""
    room = asyncio.Semaphore(concurrency)

    async def one(item: ItemT) -> T | ClientError:
        async with room:
            try:
                return await ask(item)
            except ClientError as error:
                return error.with_traceback(None)

    waiting: deque[tuple[ItemT, asyncio.Task[T | ClientError]]] = deque()
    try:
        async for item in _each(items):
            waiting.append((item, asyncio.create_task(one(item))))
            while waiting and (len(waiting) >= AHEAD * concurrency or waiting[0][1].done()):
                yield waiting[0][0], await waiting[0][1]
                waiting.popleft()
        while waiting:
            yield waiting[0][0], await waiting[0][1]
            waiting.popleft()
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)


async def _each(items: Iterable[ItemT] | AsyncIterable[ItemT]) -> AsyncIterator[ItemT]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
