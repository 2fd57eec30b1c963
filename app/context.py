"""What is known of one request while it is under way: its id, its deadline, and the times that become headers and metrics."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from app.spans import Trace
    from model.types import ModelInfo

SCOPE_KEY = "sknet.context"


@dataclass(frozen=True, slots=True)
class Deadline:
    """When an answer is too late: `at` in loop time, and the seconds that were given."""

    at: float
    limit_s: float


class Lap(NamedTuple):
    """One phase of one image: since when it waited, on the monotonic clock, and the seconds of the waiting and of the work."""

    phase: str
    since: float
    queue_s: float
    run_s: float
    batch_size: int = 1  # images of the same call


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent in each phase of one image; where each lay, for spans; which image of a batch it was, and which model's."""

    queue_s: float
    prepare_s: float
    inference_s: float
    laps: tuple[Lap, ...] = ()  # none where the answer was known already
    image: int = 0
    model: ModelInfo | None = None


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
    trace: Trace | None = None  # none where tracing is off

    @property
    def marks(self) -> dict[str, str]:
        """What every log line of the request carries: its id, and those of its span where there is one."""
        if self.trace is None:
            return {"request_id": self.id}
        return {"request_id": self.id, "trace_id": self.trace.trace_id, "span_id": self.trace.span_id}


def context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    """The context that the middleware put into an ASGI scope."""
    return cast("RequestContext", scope[SCOPE_KEY])
