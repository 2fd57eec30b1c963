"""What a stage of the line keeps of each item and of each call: plain records. Knows no thread and no queue."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True)
class Ran(Generic[RowT]):
    """What came of an item; the seconds it waited for a thread, and those of the call it was part of.

    `since` is when it began to wait, on the stage's clock.
    """

    row: RowT
    queue_s: float
    run_s: float
    batch_size: int
    since: float = 0.0


@dataclass(slots=True, eq=False)
class Entry(Generic[ItemT, RowT]):
    """An item that somebody waits for."""

    held: list[ItemT]  # the item, or nothing once its owner has left
    deadline: float  # loop time
    limit_s: float
    future: asyncio.Future[Ran[RowT]]
    since: float


@dataclass(slots=True, eq=False)
class Turn:
    """What a thread tells of a call, whether it went well or not."""

    alive: list[int] = field(default_factory=list)  # positions of the items that were still wanted when it began
    started: float = 0.0  # 0 while it waits for a thread
    ended: float = 0.0
