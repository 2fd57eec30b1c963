"""How often somebody may ask: a bucket of requests for each, that fills at a steady rate. Knows no HTTP, and not who they are."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from app.errors import RateLimited

MOST = 65_536  # buckets held, some 10 MB; beyond that the one that was longest untouched is forgotten, and is full again


class Rates:
    """Buckets that hold `burst` requests and get `rate` new ones a second.

    What is held of each is one number (the generic cell rate algorithm, ITU-T I.371): the time at which it will be full.
    """

    def __init__(self, rate: float, burst: int, *, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._most = most
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # the longest untouched first

    def __len__(self) -> int:
        return len(self._full_at)

    def refusal(self, who: str) -> RateLimited | None:
        """Why `who` has to wait; None where there is a request left. Takes none."""
        empty_s = self._full_at.get(who, 0.0) - self._clock() - (self._burst - 1) / self._rate
        if empty_s <= 1e-6:  # what is left of rounding
            return None
        return RateLimited(self._rate, max(1, math.ceil(empty_s)))

    def take(self, who: str) -> RateLimited | None:
        """Take a request out of the bucket of `who`; where there is none left, why not."""
        refused = self.refusal(who)
        if refused is None:
            self._full_at[who] = max(self._full_at.get(who, 0.0), self._clock()) + 1 / self._rate
            if len(self._full_at) > self._most:
                self._full_at.popitem(last=False)
        if who in self._full_at:
            self._full_at.move_to_end(who)
        return refused
