"""What every request passes: an id, a deadline, a log line, the counts, and a watch for clients that leave.

Pure ASGI, so that bodies stream and nothing is buffered here. Answers come from `app.problems`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import SCOPE_KEY, Deadline, RequestContext
from app.errors import AppError, InvalidParameter
from app.metrics import Metrics
from app.problems import answer, is_fault

if TYPE_CHECKING:
    from app.spans import Tracing

logger = logging.getLogger("sknet.service")
access = logging.getLogger("sknet.access")

_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context, section 3.2.2
_READ_HERE = frozenset({b"x-request-id", b"x-timeout-ms", b"traceparent"})
UNMATCHED = "unmatched"  # in counts, where no route has the path
CLIENT_LEFT = "left"  # in logs and counts, where there is no status to tell


class RequestLog:
    """Outermost: gives each request its context, headers and log line, and answers what nothing else did."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        deadline_s: float,
        timed: frozenset[str],
        draining: Callable[[], bool] = lambda: False,
        tracing: Tracing | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._deadline_s = deadline_s
        self._draining = draining
        self._tracing = tracing
        self._timed = timed  # paths whose clients may lower the deadline
        self._counted: dict[tuple[str, int | None], tuple[Counter, Histogram]] = {}  # by route and status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        context, error = self._context(scope)
        if self._tracing is not None:
            context.trace = self._tracing.begin(scope, started)
        method = scope["method"]
        head_only = method == "HEAD"
        if head_only:  # what GET would answer, without its body (RFC 9110, section 9.3.2)
            scope = {**scope, "method": "GET"}
        scope[SCOPE_KEY] = context
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", context.id.encode())]
                if error is not None or self._draining():
                    # answered without reading the body, if there is one; or the client's next request should go elsewhere
                    headers.append((b"connection", b"close"))
                headers.append((b"server-timing", _server_timing(context, time.monotonic() - started)))
                if context.trace is not None:
                    headers.append((b"traceresponse", context.trace.response))
                message = {**message, "headers": headers}
            elif head_only:
                message = {**message, "body": b""}
            await send(message)

        try:
            if error is not None:
                await answer(error, scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass  # nobody is there to answer; the log line says so
        except Exception as fault:
            logger.exception("request failed", extra=context.marks)
            if status is None:
                await answer(fault, scope, receive, send_with_headers)
            else:
                raise  # half an answer is out: the server must cut the connection
        finally:
            route, seconds = self._route(scope), time.monotonic() - started
            self._count(context, route, status, seconds)
            _log(scope, method, context, status, seconds)
            _trace(scope, method, context, route, status, seconds)

    def _context(self, scope: Scope) -> tuple[RequestContext, AppError | None]:
        given: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in _READ_HERE:
                given.setdefault(name, value)
        request_id = given.get(b"x-request-id", b"")
        traceparent = given.get(b"traceparent", b"")
        timeout = given.get(b"x-timeout-ms")
        limit_s, error = self._deadline_s, None
        if timeout is not None and scope["path"] in self._timed:
            digits = timeout.lstrip(b"0")
            if digits.isdigit():
                limit_s = min(limit_s, int(digits[:12]) / 1000)  # more digits than that are years
            else:
                error = InvalidParameter("X-Timeout-Ms", timeout.decode("latin-1"), "a whole number of milliseconds, 1 or more")
        context = RequestContext(
            request_id.decode() if _ID.fullmatch(request_id) else os.urandom(16).hex(),
            Deadline(asyncio.get_running_loop().time() + limit_s, limit_s),
            traceparent.decode() if _TRACEPARENT.fullmatch(traceparent) else None,
        )
        return context, error

    def _route(self, scope: Scope) -> str:
        """Its pattern, not the path: strangers must not be able to make new time series."""
        refused = scope["path"] if scope["path"] in self._timed else UNMATCHED  # before it came to a route
        return str(getattr(scope.get("route"), "path", refused))

    def _count(self, context: RequestContext, route: str, status: int | None, seconds: float) -> None:
        counted = self._counted.get((route, status))
        if counted is None:  # kept, since looking a series up by its labels costs more than counting
            metrics = self._metrics
            counted = metrics.requests.labels(route, status or CLIENT_LEFT), metrics.request_seconds.labels(route)
            self._counted[route, status] = counted
        counted[0].inc()
        counted[1].observe(seconds)
        if context.problem is not None:
            self._metrics.rejected.labels(context.problem).inc()


def _log(scope: Scope, method: str, context: RequestContext, status: int | None, seconds: float) -> None:
    if not access.isEnabledFor(logging.INFO):
        return
    path = scope["path"][:500]
    fields = {
        **context.marks,
        "traceparent": context.traceparent,
        "method": method,
        "path": path,
        "status": status or CLIENT_LEFT,
        "problem": context.problem,
        "key": context.key,
        "duration_ms": round(seconds * 1000, 2),
        "client": (scope.get("client") or ("", 0))[0],
    }
    words = (method, path, status or CLIENT_LEFT)
    # By hand, since `access.info` first searches the stack for the line of code that logs, which is always this one.
    access.handle(access.makeRecord(access.name, logging.INFO, __file__, 0, "%s %s %s", words, None, extra=fields))


def _trace(scope: Scope, method: str, context: RequestContext, route: str, status: int | None, seconds: float) -> None:
    if context.trace is None:
        return
    known = None if route == UNMATCHED else route
    try:
        context.trace.end(scope, context, method, known, status, seconds, failed=is_fault(status))
    except Exception:  # the request is answered: whatever its span fails at is no reason to cut its connection
        logger.exception("span not sent", extra=context.marks)


class Departures:
    """Stops the work of a client that left: once the body is in, anything more that arrives can only be a disconnect."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watch = _Watch(receive, send)
        try:
            await self._app(scope, watch.receive, watch.send)
        except asyncio.CancelledError:
            if watch.end() == 0:
                raise ClientDisconnect from None  # cancelled by the watch, and not from outside as well
            raise
        finally:
            watch.end()


class _Watch:
    """Waits beside the work of one request for its client to leave."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._work = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None  # none before the body is in: most requests without one need none
        self._left: asyncio.Future[Message] | None = None
        self._answering = False
        self._cancelled = False

    async def receive(self) -> Message:
        if self._left is not None:
            return await asyncio.shield(self._left)
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._left = asyncio.get_running_loop().create_future()
            if message["type"] == "http.disconnect":
                self._left.set_result(message)
            else:
                self._watcher = asyncio.create_task(self._watch(self._left))
        return message

    async def send(self, message: Message) -> None:
        self._answering = True
        await self._send(message)

    async def _watch(self, left: asyncio.Future[Message]) -> None:
        left.set_result(await self._receive())
        if not self._answering and self._work is not None:
            self._cancelled = self._work.cancel()

    def end(self) -> int | None:
        """Take back what the watch did; how many others asked the work to be cancelled, None if the watch did not."""
        watcher, self._watcher = self._watcher, None
        work, self._work = self._work, None  # neither is kept: a circle would hold every request until the next collection
        if watcher is not None:
            watcher.cancel()
        return work.uncancel() if self._cancelled and work is not None else None


def _server_timing(context: RequestContext, total_s: float) -> bytes:
    """RFC-style `Server-Timing` (W3C); of a batch the longest of each phase, since its images ran side by side."""
    phases = {"queue": 0.0, "prepare": 0.0, "inference": 0.0}
    for t in context.timings:
        phases["queue"] = max(phases["queue"], t.queue_s)
        phases["prepare"] = max(phases["prepare"], t.prepare_s)
        phases["inference"] = max(phases["inference"], t.inference_s)
    phases["total"] = total_s
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in phases.items()).encode()
