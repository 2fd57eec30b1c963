"""How large a batch may be, learned from those that did not fit. Knows nothing of what is in one."""

from __future__ import annotations


class Ceiling:
    """The largest batch that fits into the device's memory, as far as it is known.

    Halved when a batch did not fit. Since the shortage may have been a neighbour's, it is doubled again after `patience` batches
    of its size went well; a probe that fails costs one call and no answer, and doubles the patience, so that probes become rare
    where the shortage is the device's own.
    """

    def __init__(self, most: int, patience: int = 256) -> None:
        self.now = self._most = most
        self._patience = patience
        self._went = 0  # batches as large as it, since it was last changed
        self._before = 0  # while a probe is out: what it was before

    def failed(self, size: int) -> None:
        """A batch of this size did not fit."""
        if 0 < self._before < size:
            self._patience = min(self._patience * 2, 1_000_000)
        self.now = max(1, min(self.now, size // 2))
        self._went = self._before = 0

    def fitted(self, size: int) -> None:
        """A batch of this size did."""
        if size > self._before:
            self._before = 0
        if size < self.now or self.now == self._most:
            return
        self._went += 1
        if self._went >= self._patience:
            self._before, self._went = self.now, 0
            self.now = min(self._most, self.now * 2)
