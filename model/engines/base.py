"""What an engine is: pixels in, logits out. Knows nothing of checkpoints, of files that people send, or of schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from model.device import Placement
from model.types import Choice, PreprocessSpec

if TYPE_CHECKING:
    from model.graphs import Graph
    from model.sknet import SKNet

# Either uint8 pixels (B, H, W, 3), which the engine normalises inside, or float32 (B, 3, H, W), normalised already.
Batch = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Plan:
    """What an engine is made from: it calls either `network` or `graph`, at most once.

    `network` builds the network with its weights, in float32 on the CPU. `graph` finds or makes the exported graph, without
    torch in this process. `streams` and `batch_size` are 0 where the engine decides.
    """

    network: Callable[[], SKNet]
    graph: Callable[[], Graph]
    spec: PreprocessSpec
    placement: Placement
    streams: int = 0
    batch_size: int = 0


class Engine(Protocol):
    """A network ready to run on one device.

    It likes `streams` calls of `run` at once, from as many threads, each of at most `batch_size` images.
    """

    choice: Choice
    placement: Placement
    streams: Choice
    batch_size: int
    parameters: int
    gmacs: float  # for one image at the checkpoint's input size
    reference: npt.NDArray[np.float32] | None  # float32 logits of `model.engines.proof.images`; None: it is the reference

    def run(self, batch: Batch, *, alone: bool = False) -> npt.NDArray[np.float32]:
        """Images -> logits (B, num_classes). `alone`: nothing else wants the processor now.

        Raises:
            EngineError: the computation failed; the engine may be used again.
        """
        ...

    def close(self) -> None:
        """Give the memory back. The engine must not be used after."""
        ...
