"""What the clients of a Ray cluster are told when no replica could answer: for the proxies of Ray Serve, which answer then.

Of a request that was in a replica which died Ray says 500 and no word more, and of one that found no room or waited too long a
line of text. None of them was answered, and all may be sent again, which is what a 503 with `Retry-After` says to every client.
The answers of replicas pass as they are. Knows nothing of replicas, and runs where none does.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import NotReady
from app.problems import response_of

LOST = "the replica that had this request is gone; send it again"
# What Ray itself says, by status: `get_http_response_status` of its `serve/_private/http_util.py`.
RAYS_OWN = {
    408: "this request waited too long for a replica; send it again",
    429: "every replica is busy, and too many requests wait; send it again",
    503: "no replica has room for this request at present; send it again",
}
OURS = b"server-timing"  # in every answer of a replica
INTERNAL = "/-/"  # Ray's own paths


def middlewares() -> list[Middleware]:
    """For `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`: Ray calls it where a proxy starts."""
    return [Middleware(Answers)]


class Answers:
    """Makes a problem of what a proxy says for itself, and one of the two request ids."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(INTERNAL):
            await self._app(scope, receive, send)
            return
        answered = replaced = False

        async def tell(message: Message) -> None:
            nonlocal answered, replaced
            if message["type"] == "http.response.start":
                answered = True
                names = {bytes(name).lower() for name, _ in message["headers"]}
                if message["status"] in RAYS_OWN and OURS not in names:
                    replaced = True
                    await _refuse(RAYS_OWN[message["status"]], scope, receive, send)
                    return
                message = {**message, "headers": _one_id(message["headers"])}
            if not replaced:
                await send(message)

        await self._app(scope, receive, tell)
        if not answered:
            await _refuse(LOST, scope, receive, send)


def _plain(method: str, path: str) -> bool:
    """Which protocols are on only the replicas know; but whoever asks here reads errors as these protocols have them."""
    return path in ("/v2", "/hf") or path.startswith("/v2/") or (path == "/" and method == "POST")


def _one_id(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers with the first `X-Request-ID`, which is the replica's and in its log; Ray adds its own behind."""
    seen = 0

    def wanted(name: bytes) -> bool:
        nonlocal seen
        seen += (found := bytes(name).lower() == b"x-request-id")
        return not found or seen == 1

    return [(bytes(name), bytes(value)) for name, value in headers if wanted(name)]


async def _refuse(why: str, scope: Scope, receive: Receive, send: Send) -> None:
    response = response_of(NotReady([why]), scope, _plain)
    ids = [value for name, value in scope["headers"] if name.lower() == b"x-request-id"]  # the client's, or Ray's
    if ids:
        response.headers["x-request-id"] = ids[-1].decode("latin-1")
    await response(scope, receive, send)
