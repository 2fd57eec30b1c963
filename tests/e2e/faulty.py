"""`sknet` with an engine that misbehaves on order: `python -m tests.e2e.faulty FILE serve ...`, where FILE holds the order.

`raise` fails every call, `nan` gives numbers that are none, `hang` never comes back, `gone` fails every call and every load; an
empty file, or none, leaves the engine as it is. Only the engine is replaced: all else is the service that users start.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app import main
from app.cli import main as command
from app.settings import Settings
from model.engines.base import Outputs
from model.errors import DeviceError, EngineError
from model.manager import LoadedModel


class FaultyEngine:
    """An engine that looks at its orders before each call."""

    def __init__(self, engine: Any, orders: Path) -> None:
        self._engine = engine
        self._orders = orders

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, batch: npt.NDArray[Any], *, alone: bool = False, features: bool = False) -> Outputs:
        order = read(self._orders)
        if order == "hang":
            while True:  # as native code does: whatever becomes of the order, this call never ends
                time.sleep(0.05)
        if order in {"raise", "gone"}:
            raise EngineError("the device reported an error")
        found: Outputs = self._engine.run(batch, alone=alone, features=features)
        return found._replace(logits=np.full_like(found.logits, np.nan)) if order == "nan" else found


def read(orders: Path) -> str:
    """The order of the moment."""
    return orders.read_text().strip() if orders.exists() else ""


def serve_faulty(orders: Path) -> None:
    """Be `sknet` with the arguments that are left, and with such engines."""
    load = main.load_model

    def load_faulty(settings: Settings) -> LoadedModel:
        if read(orders) == "gone":
            raise DeviceError("there is no such device any more")
        model = load(settings)
        assert isinstance(model, LoadedModel)
        model._engine = FaultyEngine(model._engine, orders)
        return model

    main.load_model = load_faulty
    command()


if __name__ == "__main__":
    serve_faulty(Path(sys.argv.pop(1)))
