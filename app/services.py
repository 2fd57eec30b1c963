"""What routes work with: made once by the composition root, found through the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from app.classifier import Classifier
from app.metrics import Metrics
from app.room import Room
from app.settings import Settings
from app.sources import Fetch
from app.swaps import Swaps


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one application."""

    settings: Settings
    metrics: Metrics
    classifier: Classifier
    swaps: Swaps
    room: Room
    fetch: Fetch | None = None  # none where the settings allow no urls


def services_of(request: Request) -> Services:
    """The services of the application that this request came to."""
    return cast("Services", request.app.state.services)


async def _services(request: Request) -> Services:
    return services_of(request)  # a coroutine, since the framework runs plain functions in a thread


Has = Annotated[Services, Depends(_services)]
