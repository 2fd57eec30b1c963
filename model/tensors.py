"""Whether an array is an input of the network. Knows nothing of the protocols that arrays come by."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import TensorUnusable
from model.types import PreprocessSpec

# Pixels come to some -2 to 3. A network answers ten times that as well, but 0..255, which somebody forgot to normalise, does not
# pass for an input, and nothing overflows on its way, which would look like a fault of the engine.
MOST = 50.0


def checked(array: npt.NDArray[Any], spec: PreprocessSpec) -> npt.NDArray[Any]:
    """uint8 (H, W, 3) or float32 (3, H, W) of the size that the network takes, as it came.

    Raises:
        TensorUnusable: another kind or shape, a number that is not finite, or one beyond `MOST` either way.
    """
    height, width = spec.size
    shapes = {"uint8": (height, width, 3), "float32": (3, height, width)}
    if shapes.get(array.dtype.name) != array.shape:
        allowed = " or ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise TensorUnusable(f"an array of {array.dtype.name} {array.shape} is no input of this model; it takes {allowed}")
    if array.dtype == np.float32:
        least, most = float(array.min()), float(array.max())  # not a number, if there is one
        if not (least >= -MOST and most <= MOST):
            raise TensorUnusable(
                f"the array holds numbers from {least:g} to {most:g}; normalised pixels are some -3 to 3, and none may be beyond "
                f"{MOST:g} either way"
            )
    return array
