"""Routes that ask nobody but themselves what a request holds. Knows none of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class Direct(APIRoute):
    """Without a query there is nothing to validate or to resolve, which costs more than all the rest of such a request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What is called for each request: the endpoint itself, which then needs nothing but the request and its path."""
        validating = super().get_route_handler()
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            return await validating(request) if request.scope["query_string"] else await endpoint(request, **request.path_params)

        return handle
