"""Which trace a request of the client belongs to (W3C Trace Context): the one it is told, or OpenTelemetry's current one.

It makes no spans, and never imports OpenTelemetry for those who do not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

# Section 3.2.2: neither the version ff nor ids of zeros only are valid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
_told: ContextVar[Mapping[str, str] | None] = ContextVar("trace of the client", default=None)


@contextmanager
def continuing(traceparent: str | None, tracestate: str | None = None) -> Iterator[None]:
    """What is asked of a service within this block belongs to the trace of these headers, as a request brought them.

    Where `traceparent` is None or not valid, as strangers' may be, the block changes nothing.
    """
    told: Mapping[str, str] | None = _told.get()
    if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
        told = {"traceparent": traceparent}
        if tracestate is not None and _TRACESTATE.fullmatch(tracestate):
            told["tracestate"] = tracestate
    token = _told.set(told)
    try:
        yield
    finally:
        _told.reset(token)


def trace_headers() -> Mapping[str, str]:
    """The headers of a request that is made here; none where nobody traces."""
    told = _told.get()
    if told is not None:
        return told
    if "opentelemetry.trace" not in sys.modules:  # so there is no span either
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(found)
    return found
