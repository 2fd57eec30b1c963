"""The protocols that the settings switch on. Each has a file of its own here, and says what it adds."""

from __future__ import annotations

from collections.abc import Callable

from app.dialects import Dialect
from app.routes import oip
from app.settings import Settings


def spoken(settings: Settings) -> list[Dialect]:
    """Those that are on, in the order of the documentation."""
    makers: dict[str, Callable[[Settings], Dialect]] = {"v2": oip.dialect}
    names = {name.strip() for name in settings.dialects.split(",")}
    return [make(settings) for name, make in makers.items() if name in names]
