"""Which sizes of batches an engine has ready, and the places for batches in flight. Knows nothing of torch or of devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

SlotT = TypeVar("SlotT")


class Part(NamedTuple):
    """Images [start, stop) of a batch, computed as a batch of `size`, of which only the first rows count."""

    start: int
    stop: int
    size: int


class BatchSizes:
    """The sizes for which something was compiled, and how a batch of any size is made of them."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self.sizes = tuple(sorted(set(sizes)))
        if not self.sizes or self.sizes[0] < 1:
            raise ValueError(f"sizes of batches {self.sizes}: give at least one, each 1 or more")

    @classmethod
    def doubling(cls, limit: int) -> BatchSizes:
        """1, 2, 4, ... and `limit` itself: padding to the next one never doubles the work."""
        return cls([*(2**i for i in range(limit.bit_length()) if 2**i < limit), limit])

    @property
    def largest(self) -> int:
        return self.sizes[-1]

    def padded(self, count: int) -> Iterator[Part]:
        """As few parts as possible, each filled up to the next size: where a call costs more than the rows in it."""
        for start in range(0, count, self.largest):
            stop = min(start + self.largest, count)
            yield Part(start, stop, next(size for size in self.sizes if size >= stop - start))

    def exact(self, count: int) -> Iterator[Part]:
        """Parts without padding, the large ones first: where every row costs. Needs the size 1."""
        start = 0
        for size in reversed(self.sizes):
            for _ in range((count - start) // size):
                yield Part(start, start + size, size)
                start += size
        if start < count:
            raise ValueError(f"a batch of {count} is not made of {self.sizes} without padding")


class Slots(Generic[SlotT]):
    """A fixed number of places; each is held by one thread at a time, and who finds none free waits."""

    def __init__(self, slots: Sequence[SlotT]) -> None:
        self._free: SimpleQueue[SlotT] = SimpleQueue()
        for slot in slots:
            self._free.put(slot)

    @contextmanager
    def hold(self) -> Iterator[SlotT]:
        slot = self._free.get()
        try:
            yield slot
        finally:
            self._free.put(slot)
