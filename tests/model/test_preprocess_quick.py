"""The quick way to the same input: as near to the reference path as is claimed, whatever the picture's shape and make."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.errors import CheckpointError
from model.image import DEFAULT_LIMITS, decode, decode_reduced
from model.preprocess import INTERPOLATIONS, LEAST_SIDE, SMOOTH, describe, least_size, pixels, quick_pixels
from model.types import PreprocessSpec
from tests.images import encode, oriented, photograph
from tests.strategies import images, specs

SPEC = PreprocessSpec()
SIZES = [
    (500, 333), (333, 500), (400, 296), (256, 256), (257, 255), (37, 1000), (1000, 37), (1, 1), (7, 3), (451, 300), (225, 329),
    (300, 1), (1, 300), (2, 901),
]  # fmt: skip


def quick(image: Image.Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """From a picture of full size."""
    out = quick_pixels(image, spec, image.size, (0, 0, image.width, image.height))
    assert out.shape == (*spec.size, 3)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous
    return out


def from_bytes(data: bytes, spec: PreprocessSpec) -> tuple[NDArray[np.uint8], float]:
    """As a request is served; and how many times smaller the picture was decoded."""
    picture = decode_reduced(data, DEFAULT_LIMITS, partial(least_size, spec=spec))
    scale = picture.info.width / (picture.extent[2] - picture.extent[0])
    return quick_pixels(picture.image, spec, (picture.info.width, picture.info.height), picture.extent), scale


def levels(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.abs(np.subtract(a, b, dtype=np.int64))


def assert_same_but_for_roundings(image: Image.Image, spec: PreprocessSpec, share: float) -> None:
    off = levels(quick(image, spec), pixels(image, spec))
    assert off.max() <= 1
    assert (off > 0).mean() <= share


# --- the same pixels from a picture of full size -----------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("name", ["chelsea", "astronaut", "coffee"])
def test_photographs_of_odd_sizes_differ_by_roundings(name: str, size: tuple[int, int]) -> None:
    assert_same_but_for_roundings(photograph(name, size), SPEC, 0.002)


@pytest.mark.parametrize("crop_pct", [0.5, 0.875, 1.0, 1.2])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("shape", [(224, 224), (160, 256), (257, 129), (32, 32)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_crop_modes_differ_by_roundings(crop_mode: str, crop_pct: float, shape: tuple[int, int]) -> None:
    spec = PreprocessSpec(size=shape, crop_pct=crop_pct, crop_mode=crop_mode)
    for size in ((451, 300), (333, 500), (20, 30), (100, 2000)):
        assert_same_but_for_roundings(photograph(size=size), spec, 0.002)


@given(images(max_side=60), specs())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_small_image_and_spec_differ_by_roundings(image: Image.Image, spec: PreprocessSpec) -> None:
    off = levels(quick(image, spec), pixels(image, spec))
    if spec.interpolation not in SMOOTH:
        assert off.max() == 0
    else:  # at scales such as 2:3 many sums lie between two levels, and noise has no neighbours alike
        assert off.max() <= 2
        assert off.mean() < 0.25


@pytest.mark.parametrize("interpolation", sorted(set(INTERPOLATIONS) - set(SMOOTH)))
def test_filters_with_hard_edges_take_the_reference_path(interpolation: str) -> None:
    spec = PreprocessSpec(interpolation=interpolation)
    assert least_size(5000, 4000, spec) == (5000, 4000)
    for size in ((500, 333), (31, 100)):
        assert np.array_equal(quick(photograph(size=size), spec), pixels(photograph(size=size), spec))
    assert describe(spec, exact=False) == describe(spec)


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (224, 300, 3), dtype=np.uint8)
    assert np.array_equal(quick(Image.fromarray(noise), PreprocessSpec(crop_pct=1.0)), noise[:, 38:262])


def test_other_modes_are_read_as_rgb_and_the_image_is_left_alone() -> None:
    gray = photograph().convert("L")
    before = gray.tobytes()
    assert np.array_equal(quick(gray, SPEC), quick(gray.convert("RGB"), SPEC))
    assert gray.tobytes() == before


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(1, 65_535), (65_535, 1), (3, 5_000_000), (5_000_000, 3)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_extreme_shapes_cost_no_memory(size: tuple[int, int], crop_mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    resize = Image.Image.resize

    def watched(self: Image.Image, size: tuple[int, int], *args: Any, **kwargs: Any) -> Image.Image:
        made.append(size[0] * size[1])
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", watched)
    spec = PreprocessSpec(crop_mode=crop_mode)
    tracemalloc.start()
    out = quick(Image.new("RGB", size, (255, 0, 0)), spec)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made
    assert max(made) <= 16 * 1024 * 1024
    assert peak_bytes < 16e6
    assert out[111, 111].tolist() == [255, 0, 0]


def test_the_crop_is_in_the_middle_of_a_picture_of_tens_of_thousands_of_rows() -> None:
    rows = np.broadcast_to(np.linspace(0, 255, 60_000)[:, None, None], (60_000, 2, 3)).astype(np.uint8)
    out = quick(Image.fromarray(rows), SPEC)
    assert set(np.unique(out)) == {127}
    assert levels(out, pixels(Image.fromarray(rows), SPEC)).max() == 0


# --- from a picture that was decoded smaller ---------------------------------------------------------------------------


def sharp(width: int, height: int) -> Image.Image:
    """A large picture with detail down to the pixel, as enlarging one photograph would not give: tiles of three."""
    image = Image.new("RGB", (width, height))
    tiles = [photograph(name) for name in ("chelsea", "astronaut", "coffee")]
    for i, y in enumerate(range(0, height, 300)):
        for j, x in enumerate(range(0, width, 451)):
            image.paste(tiles[(i + j) % 3], (x, y))
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_photograph_is_decoded_smaller_and_hardly_differs(orientation: int) -> None:
    data = oriented(sharp(2411, 1701), orientation, "JPEG", quality=92)  # neither side is a multiple of the 2 it is halved by
    out, scale = from_bytes(data, SPEC)
    assert scale == 2
    off = levels(out, pixels(decode(data)[0], SPEC))
    assert off.mean() < 0.8
    assert np.sqrt((off**2).mean()) < 1.5
    assert off.max() < 30  # on the seams of the tiles


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize(("crop_mode", "divisor"), [("center", 8), ("squash", 4), ("border", 8)])
def test_what_the_last_column_holds_beyond_the_picture_does_not_shift_it(crop_mode: str, divisor: int, orientation: int) -> None:
    data = oriented(photograph(size=(2411, 2087)), orientation, "JPEG", quality=95)
    spec = PreprocessSpec(size=(96, 64), crop_mode=crop_mode)
    picture = decode_reduced(data, DEFAULT_LIMITS, partial(least_size, spec=spec))
    assert picture.image.size == (-(-2411 // divisor), -(-2087 // divisor))
    exact = pixels(decode(data)[0], spec)
    off = levels(quick_pixels(picture.image, spec, (2411, 2087), picture.extent), exact)
    careless = levels(quick_pixels(picture.image, spec, (2411, 2087), (0, 0, *picture.image.size)), exact)
    assert off.mean() < 0.5
    assert off.max() <= 6
    assert careless.mean() > 2 * off.mean()


@given(st.integers(1, 5000), st.integers(1, 5000), specs())
@settings(max_examples=200, deadline=None)
def test_the_least_size_is_twice_the_resized_one_and_no_thumbnail(width: int, height: int, spec: PreprocessSpec) -> None:
    least = least_size(width, height, spec)
    if spec.interpolation not in SMOOTH:
        assert least == (width, height)
        return
    scaled = [int(side / spec.crop_pct) for side in spec.size]
    if spec.crop_mode == "border":
        assert max(least) >= 2 * min(scaled)
    else:
        assert min(least) >= 2 * min(scaled)
    assert min(least) >= LEAST_SIDE


@pytest.mark.parametrize(
    ("size", "least"),
    [((4000, 3000), (682, 512)), ((300, 500), (512, 852)), ((512, 512), (512, 512)), ((1, 65_535), (512, 33_553_920))],
)
def test_known_least_sizes(size: tuple[int, int], least: tuple[int, int]) -> None:
    assert least_size(*size, SPEC) == least
    assert least_size(*size, PreprocessSpec(size=(32, 32), crop_pct=1.0))[size[0] > size[1]] == LEAST_SIDE


def test_small_photographs_are_decoded_whole_and_differ_by_roundings() -> None:
    data = encode(photograph(), "JPEG")
    for spec in (SPEC, PreprocessSpec(size=(32, 32), crop_pct=1.0)):
        out, scale = from_bytes(data, spec)
        assert scale == 1
        assert levels(out, pixels(decode(data)[0], spec)).max() <= 1


# --- what it says and needs --------------------------------------------------------------------------------------------


def test_a_spec_that_cannot_be_carried_out_is_refused() -> None:
    with pytest.raises(CheckpointError, match="crop_mode 'top' is unknown"):
        quick(photograph(), PreprocessSpec(crop_mode="top"))


def test_the_description_tells_the_quick_path() -> None:
    assert describe(SPEC, exact=False) == (
        "RGB with the shorter side scaled to 256 pixels (bicubic), cropped to the central 224x224, in one step and from JPEGs "
        "decoded at 1/2, 1/4 or 1/8 of their size where that is enough, divided by 255, "
        "then normalised with mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225)."
    )


def test_bytes_become_pixels_without_torch() -> None:
    code = (
        "import sys; from functools import partial; from tests.model.test_jpeg import make\n"
        "from model.image import DEFAULT_LIMITS, decode_reduced; from model.preprocess import least_size, quick_pixels\n"
        "from model.types import PreprocessSpec as S\n"
        "data = make.encode(make.solid((2000, 1600)), 'JPEG')\n"
        "p = decode_reduced(data, DEFAULT_LIMITS, partial(least_size, spec=S()))\n"
        "print(quick_pixels(p.image, S(), (2000, 1600), p.extent).shape, p.image.size, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(224, 224, 3) (1000, 800) False"
