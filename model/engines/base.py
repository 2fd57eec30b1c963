"""What an engine is: pixels in, logits out. Knows nothing of checkpoints, of files that people send, or of schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from model.device import Placement
from model.types import Choice, PreprocessSpec

if TYPE_CHECKING:
    from model.graphs import Graph
    from model.sknet import SKNet

# Either uint8 pixels (B, H, W, 3), which the engine normalises inside, or float32 (B, 3, H, W), normalised already.
Batch = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


class Outputs(NamedTuple):
    """What one call of an engine gives, all of it float32 and out of the same pass; see `model.observed`."""

    logits: npt.NDArray[np.float32]  # (B, num_classes)
    attention: npt.NDArray[np.float32]  # (B, U, M)
    features: npt.NDArray[np.float32] | None  # (B, F, H', W'), where they were asked for


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Parts of a batch, one after the other, as one."""
    if len(parts) == 1:
        return parts[0]
    maps = [part.features for part in parts if part.features is not None]
    return Outputs(
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.attention for part in parts]),
        np.concatenate(maps) if maps else None,
    )


class Head(NamedTuple):
    """The classifier behind global average pooling, in float32."""

    weight: npt.NDArray[np.float32]  # (num_classes, F)
    bias: npt.NDArray[np.float32]  # (num_classes,)


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
    reference: Outputs | None  # what float32 answers to `model.engines.proof.images`; None: it is the reference
    head: Head

    def run(self, batch: Batch, *, alone: bool = False, features: bool = False) -> Outputs:
        """Images -> what the network makes of them; `features` too, where asked. `alone`: nothing else wants the processor now.

        Raises:
            EngineError: the computation failed; the engine may be used again.
        """
        ...

    def close(self) -> None:
        """Give the memory back. The engine must not be used after."""
        ...
