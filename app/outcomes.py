"""What became of an image, counted once. Knows nothing of what is done with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from prometheus_client import Counter

from app.context import Deadline
from app.errors import DeadlinePassed, MalformedRequest, Overloaded
from model.errors import ImageError

AnyT = TypeVar("AnyT")


async def counted(images: Counter, deadline: Deadline, work: Coroutine[Any, Any, tuple[AnyT, str]]) -> AnyT:
    """Do the work of one image within its time, and count once what became of it."""
    outcome: str | None = "failed"
    timer = asyncio.timeout_at(deadline.at)
    try:
        async with timer:
            result, outcome = await work
        return result
    except DeadlinePassed:
        outcome = "late"
        raise
    except TimeoutError:
        if not timer.expired():  # somebody else's
            raise
        outcome = "late"
        raise DeadlinePassed(deadline.limit_s) from None
    except asyncio.CancelledError:
        outcome = "abandoned"
        raise
    except (ImageError, MalformedRequest):
        outcome = "rejected"
        raise
    except Overloaded:
        outcome = None  # it was never taken on
        raise
    finally:
        del timer, work  # they know the task, and an error this frame: together they would keep the image's bytes
        if outcome is not None:
            images.labels(outcome).inc()
