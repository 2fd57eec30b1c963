"""Arrays that are inputs of the network, and all others."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from model.errors import ImageError, TensorUnusable
from model.tensors import MOST, checked
from model.types import PreprocessSpec

SPEC = PreprocessSpec(size=(8, 12))
PIXELS = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
NORMALISED = np.linspace(-2.1, 2.6, 3 * 8 * 12, dtype=np.float32).reshape(3, 8, 12)


@pytest.mark.parametrize("array", [PIXELS, NORMALISED], ids=["uint8", "float32"])
def test_an_input_is_taken_as_it_is(array: npt.NDArray[Any]) -> None:
    assert checked(array, SPEC) is array


@pytest.mark.parametrize(
    "array",
    [
        PIXELS.transpose(1, 0, 2), PIXELS.transpose(2, 0, 1), PIXELS[:, :, :2], PIXELS[None], PIXELS[:0],
        PIXELS.astype(np.float32), PIXELS.astype(np.int8), NORMALISED.astype(np.float64), NORMALISED.astype(np.float16),
        NORMALISED.transpose(1, 2, 0), NORMALISED[0], np.zeros((3, 12, 8), np.float32), np.zeros((), np.uint8),
    ],
)  # fmt: skip
def test_any_other_kind_or_shape_is_refused_in_words(array: npt.NDArray[Any]) -> None:
    with pytest.raises(TensorUnusable) as caught:
        checked(array, SPEC)
    assert f"{array.dtype.name} {array.shape}" in str(caught.value)
    assert "uint8 (8, 12, 3) or float32 (3, 8, 12)" in str(caught.value)
    assert isinstance(caught.value, ImageError)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 255.0, -255.0, MOST * 1.001, 3e38])
def test_numbers_that_no_pixel_comes_to_are_refused(number: float) -> None:
    array = NORMALISED.copy()
    array[1, 2, 3] = number
    with pytest.raises(TensorUnusable, match="the array holds numbers"):
        checked(array, SPEC)


def test_the_bounds_themselves_are_allowed() -> None:
    array = NORMALISED.copy()
    array.flat[:2] = -MOST, MOST
    assert checked(array, SPEC) is array
