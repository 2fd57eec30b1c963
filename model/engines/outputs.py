"""What comes out of a network -> what an engine gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from model.engines.base import Head, Outputs
from model.sknet import SKNet


def host(tensor: Tensor) -> npt.NDArray[np.float32]:
    """A tensor of any precision on any device -> float32 here, in memory of its own order."""
    found: npt.NDArray[np.float32] = tensor.detach().float().cpu().contiguous().numpy()
    return found


def outputs(found: Sequence[Tensor], *, features: bool) -> Outputs:
    """What `model.observed` gave, as an engine gives it."""
    logits, attention, seen = found
    return Outputs(host(logits), host(attention), host(seen) if features else None)


def head_of(net: SKNet) -> Head:
    """The classifier's numbers, copied: the network may be moved or rounded after."""
    return Head(host(net.fc.weight).copy(), host(net.fc.bias).copy())
