"""Whether a request is sent once more, and when: within one deadline, at the moment the service named, else at random ones.

It neither sends nor waits, and knows no HTTP but the text of `Retry-After`.
"""

from __future__ import annotations

import email.utils
import logging
import math
import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC

from app.client_errors import ClientError, DeadlinePassed, ProblemError, Unreachable

logger = logging.getLogger("sknet.client")

FIRST_S, LONGEST_S = 0.1, 2.0  # the longest pause after the first failure, which doubles with each, and its end
POLL_S = 0.2  # the end of it for who only waits for the service
PIECE_BYTES = 65_536
_DIGITS = re.compile(r"[0-9]+", re.ASCII)


def seconds_of(retry_after: str | None, date: str | None = None, *, now: Callable[[], float] = time.time) -> float | None:
    """Seconds to wait, from the text of `Retry-After`: a number of them or an HTTP-date (RFC 9110, section 10.2.3).

    A date is compared with the answer's own `Date`, if it has one, so that clocks need not agree. None where there is none, or
    where nobody can read it.
    """
    text = (retry_after or "").strip()
    if _DIGITS.fullmatch(text):
        return float(text)  # infinite where there are too many digits
    at = _moment(text)
    if at is None:
        return None
    since = _moment(date or "")
    return max(0.0, at - (now() if since is None else since))


def _moment(text: str) -> float | None:
    try:
        at = email.utils.parsedate_to_datetime(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


class Attempts:
    """The tries of one request.

    Pauses grow exponentially with full jitter, so that clients who failed together do not come back together; where the service
    named a time, they are added to it.

    Args:
        timeout_s: until the deadline. most: retries, None for any number.
        idempotent: it may be sent again at any time; otherwise only while it certainly has not arrived (RFC 9110, section 9.2.2).
        again_s: within which tries may begin. longest_s: the longest pause that nobody asked for.
    """

    def __init__(
        self,
        timeout_s: float,
        *,
        most: int | None = None,
        idempotent: bool = True,
        again_s: float = math.inf,
        longest_s: float = LONGEST_S,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.timeout_s = timeout_s
        self.made = 0
        self._most = most
        self._idempotent = idempotent
        self._longest_s = longest_s
        self._clock = clock
        self._draw = draw
        self._end = clock() + timeout_s
        self._again_until = clock() + again_s
        self._last: ClientError | None = None

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; 0 once it passed."""
        return max(0.0, self._end - self._clock())

    def begin(self) -> float:
        """Count a try; the seconds that it has, a millisecond at least."""
        self.made += 1
        return max(0.001, self.left_s)

    def bounded(self, data: bytes) -> Iterator[bytes]:
        """The data in pieces, and TimeoutError once the deadline passed."""
        for at in range(0, len(data), PIECE_BYTES):
            if not self.left_s:
                raise TimeoutError("the deadline passed while the request was sent")
            yield data[at : at + PIECE_BYTES]

    def pause_after(self, failure: ClientError) -> float:
        """Seconds to wait before the next try.

        Raises:
            ClientError: the failure itself, where there is to be no other try.
        """
        failure.tries = self.made
        pause_s = self._pause(failure) if self._again(failure) else None
        if pause_s is None:
            if isinstance(failure, DeadlinePassed) and not isinstance(failure, ProblemError):
                raise failure from self._last
            raise failure
        logger.debug("try %d failed (%s), the next one in %.2f s", self.made, failure, pause_s)
        self._last = failure
        return pause_s

    def _again(self, failure: ClientError) -> bool:
        if not failure.temporary or (self._most is not None and self.made > self._most):
            return False
        return self._idempotent or (isinstance(failure, Unreachable) and not failure.sent)

    def _pause(self, failure: ClientError) -> float | None:
        """None where the deadline leaves no room for it."""
        told_s = (failure.retry_after_s or 0.0) if isinstance(failure, ProblemError) else 0.0
        spare_s = min(self.left_s, self._again_until - self._clock()) - told_s
        if spare_s <= FIRST_S:
            return None
        steps = min(self.made - 1, math.ceil(math.log2(self._longest_s / FIRST_S)) if self._longest_s > FIRST_S else 0)
        return told_s + min(self._draw() * min(self._longest_s, FIRST_S * 2.0**steps), spare_s / 2)
