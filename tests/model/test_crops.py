"""`model.crops` and `preprocess.seen`: the box says which part of the picture the network saw, to a fraction of a pixel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.crops import centre, edges, seen_of
from model.preprocess import CROP_MODES, pixels, quick_pixels, seen
from model.types import Box, PreprocessSpec
from tests.images import BLUE, GREEN, RED, WHITE, photograph, solid
from tests.strategies import specs

Way = Callable[[Image.Image, PreprocessSpec], npt.NDArray[np.uint8]]

SPEC = PreprocessSpec()
SPECS = [
    SPEC,
    PreprocessSpec(interpolation="bilinear", crop_pct=1.0),
    PreprocessSpec(size=(96, 160)),
    PreprocessSpec(size=(32, 32), crop_pct=1.0),
    PreprocessSpec(crop_mode="squash"),
    PreprocessSpec(crop_mode="squash", size=(64, 96), crop_pct=0.8),
    PreprocessSpec(crop_mode="border"),
    PreprocessSpec(crop_mode="border", size=(224, 161), crop_pct=0.95),
]
SIZES = [(500, 333), (333, 500), (451, 300), (224, 224), (257, 255), (120, 900), (900, 120), (60, 41), (1200, 700)]


def quick(image: Image.Image, spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    return quick_pixels(image, spec, image.size, (0, 0, image.width, image.height))


WAYS = pytest.mark.parametrize("way", [pixels, quick])


def pitch(box: Box, spec: PreprocessSpec) -> tuple[float, float]:
    """(width, height) of a pixel of the network's input, in pixels of the picture."""
    return (box.right - box.left) / spec.size[1], (box.bottom - box.top) / spec.size[0]


def ramp(size: tuple[int, int], at: tuple[float, float], steep: tuple[float, float]) -> Image.Image:
    """Red rises from left to right and green from top to bottom; both are 128 at the point `at` of the picture's plane."""
    across, down = (128 + s * (np.arange(side) + 0.5 - a) for side, a, s in zip(size, at, steep, strict=True))
    out = np.zeros((size[1], size[0], 3))
    out[..., 0], out[..., 1] = across[None, :], down[:, None]
    return Image.fromarray(out.round().clip(0, 255).astype(np.uint8))


def assert_seen(way: Way, size: tuple[int, int], scale: float, spec: PreprocessSpec) -> None:
    """Pixels of the input show what lies where `seen_of` says: levels of a ramp whose middle is put there."""
    box, cut = seen_of(size, scale, spec), edges(size, scale)
    scales = pitch(box, spec)
    reach = [3 * max(1.0, s) + 1 for s in scales]  # of the filters
    steep = (100 / reach[0], 100 / reach[1])  # so the filters see nothing but the ramp, which they do not bend
    tried = 0
    for column in {2, spec.size[1] // 4, spec.size[1] // 2, 3 * spec.size[1] // 4, spec.size[1] - 3}:
        row = column * spec.size[0] // spec.size[1]
        x, y = box.left + (column + 0.5) * scales[0], box.top + (row + 0.5) * scales[1]
        if not (cut[0] + reach[0] < x < cut[2] - reach[0] and cut[1] + reach[1] < y < cut[3] - reach[1]):
            continue  # padding, or the filter meets the edge
        tried += 1
        red, green, _ = way(centre(ramp(size, (x, y), steep), scale), spec)[row, column].tolist()
        # The picture, and the resize after each axis, are rounded to whole levels.
        assert abs(red - 128) <= 2, (size, column, "across", (red - 128) / steep[0])
        assert abs(green - 128) <= 2, (size, row, "down", (green - 128) / steep[1])
    assert tried, size


@WAYS
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_box_is_where_the_input_comes_from(spec: PreprocessSpec, way: Way) -> None:
    for size in SIZES:
        assert seen_of(size, 1.0, spec) == seen(size, spec)
        assert_seen(way, size, 1.0, spec)


@WAYS
@pytest.mark.parametrize("scale", [1.5, 2.0])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_and_with_the_centre_enlarged(spec: PreprocessSpec, scale: float, way: Way) -> None:
    for size in SIZES:
        if min(size) > 100:  # smaller ones are all edge
            assert_seen(way, size, scale, spec)


@WAYS
@pytest.mark.parametrize("size", [(500, 333), (333, 500), (301, 777)])
@pytest.mark.parametrize("mode", CROP_MODES)
def test_marks_at_the_corners_of_the_box_are_in_the_corners_of_the_input(mode: str, size: tuple[int, int], way: Way) -> None:
    spec = PreprocessSpec(crop_mode=mode)
    box = seen(size, spec)
    across, down = pitch(box, spec)
    image = Image.new("RGB", size)
    left, top = max(box.left, 0), max(box.top, 0)  # nothing can be painted beyond the picture
    right, bottom = min(box.right, size[0]), min(box.bottom, size[1])
    wide, high = round(8 * across), round(8 * down)
    for colour, (x, y) in zip(
        (RED, WHITE, BLUE, GREEN),
        ((left, top), (right - wide, top), (left, bottom - high), (right - wide, bottom - high)),
        strict=True,
    ):
        image.paste(colour, (round(x), round(y), round(x) + wide, round(y) + high))
    found = way(image, spec)
    rows, columns = spec.size
    first, above = round((left - box.left) / across), round((top - box.top) / down)  # padding in between
    for colour, (column, row) in zip((RED, WHITE, BLUE, GREEN), ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
        x, y = (columns - first - 8 if column else first), (rows - above - 8 if row else above)
        block = found[y : y + 8, x : x + 8].astype(int)
        np.testing.assert_allclose(block[2:6, 2:6], np.broadcast_to(colour, (4, 4, 3)), atol=12)
        inner = found[rows - above - 12 if row else above + 11, columns - first - 12 if column else first + 11]
        assert inner.max() <= 12  # black again, towards the middle


@WAYS
@pytest.mark.parametrize("crop_pct", [1.0, 0.9])
@pytest.mark.parametrize("size", [(500, 333), (333, 500), (500, 31), (3, 200), (80, 79)])
def test_beyond_the_picture_is_padding(size: tuple[int, int], crop_pct: float, way: Way) -> None:
    spec = PreprocessSpec(crop_mode="border", crop_pct=crop_pct, size=(160, 192))
    box = seen(size, spec)
    across, down = pitch(box, spec)
    x, y = box.left + (np.arange(192) + 0.5) * across, box.top + (np.arange(160) + 0.5) * down
    inside = ((y > 0) & (y < size[1]))[:, None] & ((x > 0) & (x < size[0]))[None, :]
    assert not inside.all()
    found = way(solid(size, WHITE), spec)
    np.testing.assert_array_equal((found == 255).all(2), inside)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 901), (901, 3)])
@pytest.mark.parametrize("spec", SPECS[:2] + SPECS[4:5], ids=str)
def test_of_a_side_of_a_pixel_a_part_is_seen(size: tuple[int, int], spec: PreprocessSpec) -> None:
    for scale in (1.0, 1.5, 2.0):
        box, cut = seen_of(size, scale, spec), edges(size, scale)
        assert cut[2] > cut[0]
        assert cut[3] > cut[1]
        assert cut[0] - 1e-9 <= box.left < box.right <= cut[2] + 1e-9
        assert cut[1] - 1e-9 <= box.top < box.bottom <= cut[3] + 1e-9
        assert pixels(centre(solid(size), scale), spec).shape == (*spec.size, 3)
    if max(size) >= 300 and spec.crop_mode == "center":  # a square of the long side's middle
        box = seen(size, spec)
        assert box.right - box.left == pytest.approx(box.bottom - box.top, rel=0.01)


def test_figures_that_can_be_worked_out_by_hand() -> None:
    # The shorter side becomes 256, of which the middle 224 are kept: seven eighths of 333.
    box = seen((500, 333), SPEC)
    assert (box.top, box.bottom) == pytest.approx((16 / 256 * 333, 240 / 256 * 333))
    assert (box.right - box.left) == pytest.approx(224 / 384 * 500)  # the longer one becomes 384
    assert (box.left + box.right) / 2 == pytest.approx(250)
    assert seen((400, 400), PreprocessSpec(crop_pct=1.0)) == Box(0, 0, 400, 400)
    assert seen((500, 250), PreprocessSpec(crop_mode="border", crop_pct=1.0)) == Box(0, -125, 500, 375)
    assert seen((500, 250), PreprocessSpec(crop_mode="squash", crop_pct=1.0)) == Box(0, 0, 500, 250)
    assert seen_of((400, 400), 2.0, PreprocessSpec(crop_pct=1.0)) == Box(100, 100, 300, 300)
    assert edges((500, 333), 1.5) == (83, 55, 416, 277)  # 333 x 222 pixels


def test_the_centre_is_cut_out_of_the_pictures_own_pixels() -> None:
    image = photograph("chelsea")
    assert edges(image.size, 1.0) == (0, 0, *image.size)
    np.testing.assert_array_equal(np.asarray(centre(image, 1.0)), np.asarray(image))
    cut = centre(image, 2.0)
    assert cut.size == (226, 150)  # halves, rounded to even
    np.testing.assert_array_equal(np.asarray(cut), np.asarray(image)[75:225, 112:338])


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.sampled_from((1.0, 1.5, 2.0)), specs())
def test_boxes_are_centred_and_enlarging_shows_less(size: tuple[int, int], scale: float, spec: PreprocessSpec) -> None:
    cut, box, whole = edges(size, scale), seen_of(size, scale, spec), seen(size, spec)
    for axis, side in enumerate(size):
        first, last = cut[axis], cut[axis + 2]
        assert 0 <= first < last <= side
        assert last - first == max(1, round(side / scale))
        assert 0 <= (side - last) - first <= 1  # in the middle, but for half a pixel
        low, high = ((box.left, box.right), (box.top, box.bottom))[axis]
        length = spec.size[1 - axis]
        # The crop of the resized picture is in its middle as well, but for half a pixel of it.
        assert abs((low + high) / 2 - (first + last) / 2) <= 1.01 * (high - low) / length
        if spec.crop_mode != "border":
            assert first - 1e-6 <= low < high <= last + 1e-6
    if min(size) >= 100:
        assert box.right - box.left < 1.01 * (whole.right - whole.left)
