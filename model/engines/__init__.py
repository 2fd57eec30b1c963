"""Engine names -> where they are, imported only when chosen."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from model.errors import EngineError

if TYPE_CHECKING:
    from model.engines.base import Engine, Plan

ENGINES = {
    "openvino": "model.engines.openvino:OpenVinoEngine",
    "compile": "model.engines.compile:CompileEngine",
    "eager": "model.engines.eager:EagerEngine",
}


def make(name: str, plan: Plan) -> Engine:
    """Build an engine.

    Raises:
        EngineError: no such engine, or one that cannot work here.
        CheckpointError: weights that cannot be used.
    """
    if name not in ENGINES:
        raise EngineError(f"engine {name!r}: it may be {', '.join(ENGINES)}")
    module, _, kind = ENGINES[name].partition(":")
    try:
        found = import_module(module)
    except ImportError as error:
        raise EngineError(f"engine {name!r} needs {error.name}, which is not installed here") from error
    engine: Engine = getattr(found, kind)(plan)
    return engine
