"""What is known of one request while it is under way: its id, its deadline, and the times that become headers and metrics."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, cast

SCOPE_KEY = "sknet.context"


@dataclass(frozen=True, slots=True)
class Deadline:
    """When an answer is too late: `at` in loop time, and the seconds that were given."""

    at: float
    limit_s: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent in each phase of one image."""

    queue_s: float
    prepare_s: float
    inference_s: float


@dataclass(slots=True)
class RequestContext:
    """One request. Routes read the deadline and add the timings of each image they classified."""

    id: str
    deadline: Deadline
    traceparent: str | None = None
    timings: list[Timings] = field(default_factory=list)
    key: str | None = None  # name of the key that it came with
    problem: str | None = None  # slug of the problem it was answered with
    held: int = 0  # bytes taken out of the room for all


def context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    """The context that the middleware put into an ASGI scope."""
    return cast("RequestContext", scope[SCOPE_KEY])
