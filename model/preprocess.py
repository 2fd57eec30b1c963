"""Pixels -> model input, as the `PreprocessSpec` of a checkpoint says.

`pixels` is the reference path: for images of ordinary shape it equals timm 1.0.31's evaluation pipeline
(`timm.data.create_transform(..., is_training=False)`) for its three crop modes. "center" scales the shorter side to
floor(size / crop_pct) and cuts the middle out; "squash" scales both sides to that, whatever the shape; "border" scales
the longer side to it and fills the rest with the mean colour.

A picture 1 pixel wide and 65,535 high would be scaled to 256 x 16.8 million pixels first. Beyond `MAX_RESIZED_PIXELS` only
the part that the crop keeps is resized, from the same positions with the same filter: the same pixels to one level of 255
("box" has hard edges: there one pixel in a hundred may take another neighbour).

`quick_pixels` is the same picture for a third of the work: only what the crop keeps is resized, in one step, and a picture that
was decoded smaller will do, as long as it is not smaller than `least_size`. `python -m benchmarks.preprocess_agreement`
measures how far the two are apart.

This file knows nothing of files, formats, tensors or networks.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.errors import CheckpointError
from model.types import Box, PreprocessSpec

# 64 MiB at Pillow's four bytes a pixel; reached at 256 pixels of shorter side by an aspect ratio of 256:1.
MAX_RESIZED_PIXELS = 16 * 1024 * 1024
# Beyond this side Pillow's filter table, 32 to 48 bytes per source pixel of an axis, outweighs the picture: average first.
MAX_FILTERED_SIDE = 65_536

MAX_SIDE = 4096  # pixels; a configuration from elsewhere must not ask for more memory than a network could use
MIN_CROP_PCT = 0.05
Extent: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom
CROP_MODES: tuple[str, ...] = ("center", "squash", "border")
INTERPOLATIONS: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
# Filters without hard edges: what they make of a picture depends evenly on where it lies and on how it was made smaller.
SMOOTH: tuple[str, ...] = ("bilinear", "bicubic", "hamming", "lanczos")
# A picture may be decoded at this many times the size it is then resized to, but with no side below the second.
LEAST_SCALE, LEAST_SIDE = 2.0, 256


def prepare(image: Image.Image, spec: PreprocessSpec) -> NDArray[np.float32]:
    """Turn an image of any size into the network's input: float32, (3, H, W) with (H, W) = `spec.size`, C-contiguous.

    Raises:
        CheckpointError: the spec asks for something that does not exist; see `check`.
    """
    return normalise(pixels(image, spec), spec)


def pixels(image: Image.Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """The same before it is normalised: uint8, (H, W, 3), C-contiguous; engines do the rest.

    Raises:
        CheckpointError: as `prepare`.
    """
    check(spec)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return _pad(_resize_and_crop(rgb, _resized_size(rgb.size, spec), spec), spec)


def quick_pixels(image: Image.Image, spec: PreprocessSpec, original: tuple[int, int], extent: Extent) -> NDArray[np.uint8]:
    """As `pixels` of the picture of `original` (width, height), from one that may have been decoded smaller.

    `extent` is where in `image` the whole picture lies, in pixels of `image`. The reference path is taken where the filter is
    not `SMOOTH`, where nothing is resized, and for sides beyond `MAX_FILTERED_SIDE`, at which Pillow's box is not exact.

    Raises:
        CheckpointError: as `prepare`.
    """
    check(spec)
    resized = _resized_size(original, spec)
    unchanged = image.size == original == resized
    if unchanged or spec.interpolation not in SMOOTH or max(image.size) > MAX_FILTERED_SIDE:
        return pixels(image, spec)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    left, top, width, height = _kept(resized, spec)
    across, down = (extent[2] - extent[0]) / resized[0], (extent[3] - extent[1]) / resized[1]
    box = (  # the crop's edges, from the resized picture to this one
        extent[0] + left * across,
        extent[1] + top * down,
        min(extent[0] + (left + width) * across, extent[2]),
        min(extent[1] + (top + height) * down, extent[3]),
    )
    columns_first = _columns_first(original, resized)
    return _pad(_resize(rgb, (width, height), box, INTERPOLATIONS[spec.interpolation], columns_first), spec)


def least_size(width: int, height: int, spec: PreprocessSpec) -> tuple[int, int]:
    """The least (width, height) at which a picture of this size may be decoded for `quick_pixels`."""
    if spec.interpolation not in SMOOTH:
        return width, height
    resized = _resized_size((width, height), spec)
    scale = max(LEAST_SCALE, LEAST_SIDE / min(resized))
    return math.ceil(scale * resized[0]), math.ceil(scale * resized[1])


def seen(size: tuple[int, int], spec: PreprocessSpec) -> Box:
    """Which part of a picture of `size` (width, height) becomes the network's input; beyond its edges where it is padded."""
    resized = _resized_size(size, spec)
    left, top, width, height = _kept(resized, spec)
    rows, columns = spec.size
    left, top = left - (columns - width) // 2, top - (rows - height) // 2
    across, down = size[0] / resized[0], size[1] / resized[1]
    return Box(left * across, top * down, (left + columns) * across, (top + rows) * down)


def describe(spec: PreprocessSpec, *, exact: bool = True) -> str:
    """Say in one sentence what is done to a picture by `pixels`, or by `quick_pixels` where not `exact`."""
    height, width = spec.size
    scaled_height, scaled_width = _scale_size(spec)
    scaled = f"{scaled_height}" if scaled_height == scaled_width else f"{scaled_width}x{scaled_height}"
    resize = {
        "center": f"the shorter side scaled to {scaled} pixels",
        "squash": f"both sides scaled to {scaled} pixels without keeping the shape",
        "border": f"the longer side scaled to {scaled} pixels",
    }[spec.crop_mode]
    crop = "padded with the mean colour or cropped to the central" if spec.crop_mode == "border" else "cropped to the central"
    mean, std = (", ".join(f"{v:g}" for v in values) for values in (spec.mean, spec.std))
    quick = ", in one step and from JPEGs decoded at 1/2, 1/4 or 1/8 of their size where that is enough"
    return (
        f"RGB with {resize} ({spec.interpolation}), {crop} {width}x{height}"
        f"{'' if exact or spec.interpolation not in SMOOTH else quick}, "
        f"divided by 255, then normalised with mean ({mean}) and standard deviation ({std})."
    )


def check(spec: PreprocessSpec) -> None:
    """Refuse a spec that cannot be carried out.

    Raises:
        CheckpointError: the text names the field, what it held and what it may hold.
    """
    if spec.crop_mode not in CROP_MODES:
        raise CheckpointError(f"preprocessing: crop_mode {spec.crop_mode!r} is unknown; known are {', '.join(CROP_MODES)}")
    if spec.interpolation not in INTERPOLATIONS:
        known = ", ".join(INTERPOLATIONS)
        raise CheckpointError(f"preprocessing: interpolation {spec.interpolation!r} is unknown; known are {known}")
    if len(spec.size) != 2 or min(spec.size) < 1 or max(spec.size) > MAX_SIDE:
        raise CheckpointError(f"preprocessing: size {spec.size!r} must be (height, width), each from 1 to {MAX_SIDE}")
    if not (math.isfinite(spec.crop_pct) and spec.crop_pct >= MIN_CROP_PCT):
        raise CheckpointError(f"preprocessing: crop_pct {spec.crop_pct!r} must be a number from {MIN_CROP_PCT} up")
    if len(spec.mean) != 3 or not all(math.isfinite(v) for v in spec.mean):
        raise CheckpointError(f"preprocessing: mean {spec.mean!r} must be three numbers")
    if len(spec.std) != 3 or not all(math.isfinite(v) and v > 0 for v in spec.std):
        raise CheckpointError(f"preprocessing: std {spec.std!r} must be three numbers above 0")


def _scale_size(spec: PreprocessSpec) -> tuple[int, int]:
    height, width = (max(1, math.floor(side / spec.crop_pct)) for side in spec.size)
    return height, width


def _resized_size(size: tuple[int, int], spec: PreprocessSpec) -> tuple[int, int]:
    """(width, height) before the crop; the roundings are timm's and torchvision's, each in its place."""
    width, height = size
    scaled_height, scaled_width = _scale_size(spec)
    if spec.crop_mode == "squash":
        return scaled_width, scaled_height
    if spec.crop_mode == "center" and scaled_height == scaled_width:  # torchvision's Resize: the longer side is truncated
        long = int(scaled_height * max(size) / min(size))
        return (scaled_width, long) if width <= height else (long, scaled_height)
    ratios = (height / scaled_height, width / scaled_width)  # timm's ResizeKeepRatio: both sides are rounded
    ratio = max(ratios) if spec.crop_mode == "border" else min(ratios)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _resize_and_crop(image: Image.Image, resized: tuple[int, int], spec: PreprocessSpec) -> Image.Image:
    """Resize to `resized` (width, height) and keep at most `spec.size` of its middle."""
    left, top, keep_width, keep_height = _kept(resized, spec)
    resample = INTERPOLATIONS[spec.interpolation]
    reducing_gap = 3.0 if max(image.size) > MAX_FILTERED_SIDE else None
    if resized[0] * resized[1] <= MAX_RESIZED_PIXELS:
        if image.size != resized:
            image = image.resize(resized, resample, reducing_gap=reducing_gap)
        return image.crop((left, top, left + keep_width, top + keep_height))
    columns = _span(left, keep_width, resized[0], image.width)
    rows = _span(top, keep_height, resized[1], image.height)
    image = image.crop((columns[0], rows[0], columns[1], rows[1]))
    box = (columns[2], rows[2], columns[3], rows[3])
    return image.resize((keep_width, keep_height), resample, box=box, reducing_gap=reducing_gap)


def _resize(
    image: Image.Image, size: tuple[int, int], box: Extent, resample: Image.Resampling, columns_first: bool
) -> Image.Image:
    """Resize the part of `image` in the box, one axis after the other in the order asked for: between them is a rounding."""
    (width, height), (source_width, source_height) = size, image.size
    if columns_first == _columns_first(image.size, size) or width * source_height > MAX_RESIZED_PIXELS:
        return image.resize(size, resample, box=box)
    if columns_first:
        image = image.resize((source_width, height), resample, box=(0, box[1], source_width, box[3]))
        return image.resize(size, resample, box=(box[0], 0, box[2], height))
    image = image.resize((width, source_height), resample, box=(box[0], 0, box[2], source_height))
    return image.resize(size, resample, box=(0, box[1], width, box[3]))


def _columns_first(source: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether Pillow, resizing to `size`, takes the columns before the rows; tall pictures it does."""
    return source[1] - size[1] > max(0, 2 * (source[0] - size[0]))


def _kept(resized: tuple[int, int], spec: PreprocessSpec) -> tuple[int, int, int, int]:
    """What the crop keeps of the resized picture: left, top, width, height."""
    height, width = spec.size
    width, height = min(width, resized[0]), min(height, resized[1])
    # Python's rounding, to even: int(x + 0.5) is another crop.
    return round((resized[0] - width) / 2.0), round((resized[1] - height) / 2.0), width, height


def _span(start: int, count: int, resized: int, source: int) -> tuple[int, int, float, float]:
    """Along one axis: the source pixels [first, last) that the filter looks at, and within them the span to resize.

    Pillow keeps the span in float32: in a picture of 50 million rows it would be four rows off, so it counts from `first`.
    """
    scale = source / resized
    low, high = start * scale, min((start + count) * scale, source)
    margin = math.ceil(3 * max(1.0, scale)) + 1  # 3: the reach of Lanczos, the widest of the filters
    first, last = max(0, math.floor(low) - margin), min(source, math.ceil(high) + margin)
    return first, last, low - first, high - first


def _pad(image: Image.Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    height, width = spec.size
    if image.size == (width, height):
        return np.asarray(image)
    fill = tuple(round(255 * v) for v in spec.mean) if spec.crop_mode == "border" else (0, 0, 0)
    padded = Image.new("RGB", (width, height), fill)
    padded.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return np.asarray(padded)


def normalise(pixels: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.float32]:
    """uint8 (H, W, 3) -> float32 (3, H, W), C-contiguous."""
    # The order of operations, all in float32, is that of ToTensor and Normalize: the numbers are equal to the bit.
    out = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)  # (3, H, W)
    out /= np.float32(255)
    out -= np.asarray(spec.mean, dtype=np.float32)[:, None, None]
    out /= np.asarray(spec.std, dtype=np.float32)[:, None, None]
    return out
