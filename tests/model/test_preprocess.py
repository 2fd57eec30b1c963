"""Pixels -> input: equal to timm's evaluation pipeline, and safe at extreme shapes."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from numpy.typing import NDArray
from PIL import Image
from timm.data.transforms_factory import create_transform

from model.errors import CheckpointError
from model.preprocess import MAX_RESIZED_PIXELS, check, describe, prepare
from model.types import PreprocessSpec
from tests.images import photograph
from tests.strategies import images, specs

ODD_SIZES = [
    (500, 333), (333, 500), (400, 296), (224, 224), (256, 256), (257, 255), (37, 1000), (1000, 37), (1, 1), (7, 3), (451, 300),
]  # fmt: skip
SPEC = PreprocessSpec()


def by_timm(image: Image.Image, spec: PreprocessSpec) -> NDArray[np.float32]:
    transform: Any = create_transform(
        input_size=(3, *spec.size),
        interpolation=spec.interpolation,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
        mean=spec.mean,
        std=spec.std,
        is_training=False,
    )
    return np.asarray(transform(image))


def assert_equals_timm(image: Image.Image, spec: PreprocessSpec) -> None:
    ours = prepare(image, spec)
    assert ours.shape == (3, *spec.size)
    assert ours.dtype == np.float32
    assert ours.flags.c_contiguous
    np.testing.assert_allclose(ours, by_timm(image, spec), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", ODD_SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("name", ["chelsea", "astronaut", "coffee"])
def test_photographs_of_odd_sizes_equal_timm(name: str, size: tuple[int, int]) -> None:
    assert_equals_timm(photograph(name, size), SPEC)


@pytest.mark.parametrize("crop_pct", [0.875, 0.95, 1.0, 1.2])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("shape", [(224, 224), (160, 256), (257, 129), (32, 32)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_crop_modes_equal_timm(crop_mode: str, crop_pct: float, shape: tuple[int, int]) -> None:
    spec = PreprocessSpec(size=shape, crop_pct=crop_pct, crop_mode=crop_mode)
    for size in ((451, 300), (333, 500), (20, 30)):
        assert_equals_timm(photograph(size=size), spec)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_filters_equal_timm(interpolation: str, crop_mode: str) -> None:
    spec = PreprocessSpec(interpolation=interpolation, crop_mode=crop_mode)
    for size in ((500, 333), (100, 60)):
        assert_equals_timm(photograph(size=size), spec)


def test_other_means_and_deviations_equal_timm() -> None:
    assert_equals_timm(photograph(), PreprocessSpec(mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 1.0), crop_mode="border"))


@given(images(max_side=60), specs())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_small_image_and_spec_equal_timm(image: Image.Image, spec: PreprocessSpec) -> None:
    # timm rounds a very short side to nothing in this mode, and fails; here it keeps a pixel.
    assume(spec.crop_mode != "border" or min(image.size) * min(spec.size) / spec.crop_pct >= max(image.size))
    assert_equals_timm(image, spec)


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    spec = PreprocessSpec(crop_pct=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert np.array_equal(np.rint(prepare(Image.fromarray(noise), spec) * 255), noise.transpose(2, 0, 1))


def test_the_middle_of_an_odd_remainder_is_rounded_to_even() -> None:
    columns = np.arange(9, dtype=np.uint8)  # 9 - 4 leaves 5: round(2.5) is 2, while int(2.5 + 0.5) would be 3
    image = Image.fromarray(np.tile(columns[None, :, None], (4, 1, 3)))
    spec = PreprocessSpec(size=(4, 4), crop_pct=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert np.rint(prepare(image, spec)[0, 0] * 255).tolist() == [2, 3, 4, 5]


def test_other_modes_are_read_as_rgb() -> None:
    gray = photograph().convert("L")
    assert np.array_equal(prepare(gray, SPEC), prepare(gray.convert("RGB"), SPEC))


def test_preparing_leaves_the_image_alone() -> None:
    image = photograph()
    before = image.tobytes()
    prepare(image, SPEC)
    assert image.tobytes() == before


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(1, 65_535), (65_535, 1), (1, 5_000_000), (5_000_000, 1)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_extreme_shapes_cost_neither_memory_nor_time(
    size: tuple[int, int], crop_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    resize = Image.Image.resize

    def watched(self: Image.Image, size: tuple[int, int], *args: Any, **kwargs: Any) -> Image.Image:
        made.append(size[0] * size[1])
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", watched)
    tracemalloc.start()
    out = prepare(Image.new("RGB", size, (255, 0, 0)), PreprocessSpec(crop_mode=crop_mode))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert out.shape == (3, 224, 224)
    assert made
    assert max(made) <= MAX_RESIZED_PIXELS
    assert peak_bytes < 16e6  # what numpy takes; Pillow's own share is bounded by the sizes above
    red = out[:, 111, 111] * np.array(SPEC.std) + np.array(SPEC.mean)
    assert red == pytest.approx((1.0, 0.0, 0.0), abs=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "box", "nearest"])
@pytest.mark.parametrize("size", [(451, 300), (37, 1000), (1000, 37), (300, 451)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_resizing_only_what_the_crop_keeps_gives_the_same_pixels(
    size: tuple[int, int], interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photograph(size=size)
    spec = PreprocessSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation=interpolation)
    exact = prepare(image, spec)
    monkeypatch.setattr("model.preprocess.MAX_RESIZED_PIXELS", 0)
    levels = np.rint(np.abs(prepare(image, spec) - exact) * 255)
    if interpolation == "box":  # hard edges: a pixel on one may fall to either side
        assert float((levels > 0).mean()) < 0.01
    else:
        assert float(levels.max()) <= 1
        assert float((levels > 0).mean()) < 0.001


def test_the_place_of_the_crop_is_exact_in_a_picture_of_millions_of_rows() -> None:
    rows = np.arange(5_000_000, dtype=np.uint32)[:, None]  # colour counts rows: red the low bits, green the next ones
    pixels = np.stack([rows & 255, rows >> 8 & 255, rows >> 16], axis=-1).astype(np.uint8)
    plain = PreprocessSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation="nearest")
    middle = np.rint(prepare(Image.fromarray(pixels), plain)[:, 112, 112] * 255).astype(int)
    assert middle[0] + (middle[1] << 8) + (middle[2] << 16) == 2_500_000


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"crop_mode": "top"}, "crop_mode 'top' is unknown; known are center, squash, border"),
        ({"interpolation": "random"}, "interpolation 'random' is unknown; known are nearest, "),
        ({"size": (0, 224)}, r"size \(0, 224\) must be"),
        ({"size": (224, 100_000)}, r"each from 1 to 4096"),
        ({"crop_pct": 0.0}, "crop_pct 0.0 must be a number from 0.05 up"),
        ({"crop_pct": float("nan")}, "crop_pct nan"),
        ({"mean": (0.5, 0.5)}, r"mean \(0.5, 0.5\) must be three numbers"),
        ({"std": (0.2, 0.0, 0.2)}, r"std \(0.2, 0.0, 0.2\) must be three numbers above 0"),
    ],
)
def test_a_spec_that_cannot_be_carried_out_is_refused(changes: dict[str, Any], text: str) -> None:
    spec = PreprocessSpec(**changes)
    with pytest.raises(CheckpointError, match=text):
        check(spec)
    with pytest.raises(CheckpointError, match=text):
        prepare(Image.new("RGB", (8, 8)), spec)


def test_the_description_is_one_sentence_with_the_numbers() -> None:
    assert describe(SPEC) == (
        "RGB with the shorter side scaled to 256 pixels (bicubic), cropped to the central 224x224, divided by 255, "
        "then normalised with mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225)."
    )


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("center", "the shorter side scaled to 292x182 pixels"),
        ("squash", "both sides scaled to 292x182 pixels without keeping the shape"),
        ("border", "the longer side scaled to 292x182 pixels (bicubic), padded with the mean colour"),
    ],
)
def test_the_description_says_what_each_crop_mode_does(mode: str, text: str) -> None:
    assert text in describe(PreprocessSpec(size=(160, 256), crop_mode=mode))
