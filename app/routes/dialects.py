"""The protocols that the settings switch on. Each has a file of its own here, and says what it adds."""

from __future__ import annotations

from collections.abc import Callable

from app.dialects import Dialect
from app.routes import huggingface, oip, sagemaker, vertex
from app.settings import Settings, speaks


def spoken(settings: Settings) -> list[Dialect]:
    """Those that are on, in the order of the documentation."""
    makers: dict[str, Callable[[Settings], Dialect]] = {
        "v2": oip.dialect,
        "huggingface": huggingface.dialect,
        "huggingface-root": huggingface.at_root,
        "sagemaker": sagemaker.dialect,
        "vertex": vertex.dialect,
    }
    return [make(settings) for name, make in makers.items() if name in speaks(settings)]
