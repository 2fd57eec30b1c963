"""Pages of other origins that may call the service from a browser (Fetch Standard, section 3.2), by Starlette's middleware.

In two halves, since it belongs in two places: outside of everything, so that every answer can be read by the page that asked,
and inside of the request log, so that preflights are logged and counted like anything else.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_DEFAULT_PORTS = {"http://": ":80", "https://": ":443"}
_SENT = ("Authorization", "X-API-Key", "X-Request-ID", "X-Timeout-Ms", "traceparent", "tracestate")
_READ = ("X-Request-ID", "Server-Timing", "Retry-After", "traceresponse")


class Headed(CORSMiddleware):
    """The outer half: headers on every answer but those to preflights."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.app if _is_preflight(scope) else super().__call__)(scope, receive, send)


class Preflights(CORSMiddleware):
    """The inner half: answers preflights, which never come with a key."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (super().__call__ if _is_preflight(scope) else self.app)(scope, receive, send)


def with_cors(half: type[CORSMiddleware], origins: str) -> Callable[[ASGIApp], ASGIApp]:
    """Wraps an application in one half, for the origins as the settings have them.

    Credentials are never allowed: those are cookies, and the service has none. A key is a header like any other.
    """

    def wrap(app: ASGIApp) -> ASGIApp:
        return half(
            app,
            allow_origins=origins_of(origins),
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=_SENT,
            expose_headers=_READ,
        )

    return wrap


def origins_of(text: str) -> tuple[str, ...]:
    """The origins as browsers spell them: in lower case, and without a port that goes without saying."""
    origins = []
    for each in text.lower().replace(" ", "").split(","):
        scheme = each[: each.find("//") + 2]
        origins.append(each.removesuffix(_DEFAULT_PORTS.get(scheme, " ")))
    return tuple(origins)


def _is_preflight(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "OPTIONS":
        return False
    headers = Headers(scope=scope)
    return "origin" in headers and "access-control-request-method" in headers
