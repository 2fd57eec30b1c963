"""What an engine is: preprocessed images in, logits out. Knows nothing of files, labels or schedules."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.types import Choice


class Engine(Protocol):
    """A network ready to run on one device. `run` may be called from several threads at once."""

    choice: Choice
    parameters: int
    gmacs: float  # for one image at the checkpoint's input size

    def run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Images (B, 3, H, W), normalised -> logits (B, num_classes).

        Raises:
            EngineError: the computation failed; the engine may be used again.
        """
        ...

    def close(self) -> None:
        """Give the memory back. The engine must not be used after."""
        ...
