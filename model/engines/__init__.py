"""Engine names -> where they are, imported only when chosen."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from model.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.device import Placement
    from model.engines.base import Engine
    from model.sknet import SKNet

ENGINES = {"eager": "model.engines.eager:EagerEngine"}


def make(name: str, network: Callable[[], SKNet], size: tuple[int, int], placement: Placement) -> Engine:
    """Build an engine.

    Args:
        network: builds the network with its weights; called at most once, and not at all by an engine that has a graph
            of it already. size: height and width of its input in pixels.

    Raises:
        EngineError: no such engine.
        CheckpointError: weights that cannot be used.
    """
    if name not in ENGINES:
        raise EngineError(f"engine {name!r}: it may be {', '.join(ENGINES)}")
    module, _, kind = ENGINES[name].partition(":")
    engine: Engine = getattr(import_module(module), kind)(network, size, placement)
    return engine
