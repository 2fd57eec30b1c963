"""Bytes that all requests of a process may hold together: of their own bodies, and of what is fetched for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from app.errors import Overloaded

if TYPE_CHECKING:
    from app.context import RequestContext


class Room:
    """A request's share is counted in its context, and given back when it ends."""

    def __init__(self, limit: int, retry_after: Callable[[], int]) -> None:
        self.used = 0
        self._limit = limit
        self._retry_after = retry_after

    def refusal(self, count: int) -> Overloaded | None:
        """Why there is no room for so many bytes more."""
        if self.used + count <= self._limit:
            return None
        return Overloaded("bytes of bodies in flight", self._limit, self._retry_after())

    def take(self, context: RequestContext, count: int) -> None:
        """Take room for bytes that arrived.

        Raises:
            Overloaded: there is none.
        """
        if self.used + count > self._limit:
            raise Overloaded("bytes of bodies in flight", self._limit, self._retry_after())
        self.used += count
        context.held += count

    def give_back(self, context: RequestContext) -> None:
        """All that a request took."""
        self.used -= context.held
        context.held = 0
