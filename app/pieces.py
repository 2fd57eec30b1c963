"""A large answer, sent piece by piece."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PIECE_BYTES = 1 << 18


class Pieces(Response):
    """The next piece goes out when the client has taken the one before: the request lasts as long as its memory is held."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(bytes(self.body))
        for at in range(0, len(body), PIECE_BYTES):
            more = at + PIECE_BYTES < len(body)
            await send({"type": "http.response.body", "body": bytes(body[at : at + PIECE_BYTES]), "more_body": more})
