"""Decoded pixels of any mode -> RGB of eight bits, upright, on white.

This file knows nothing of files but what Pillow leaves to be done by whoever asks: a transparent colour, the depth of samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import ExifTags, Image

if TYPE_CHECKING:
    import numpy as np  # imported where samples have more than eight bits: a process that only decodes starts without it

_TRANSPOSE = {  # EXIF 2.32, tag 0x0112: how to turn what is stored into what was seen
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    # As ImageOps.exif_transpose, without rewriting the EXIF block, which fails on blocks that could be read.
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def to_rgb(image: Image.Image, data: bytes) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.format == "PNG":
        _rescale_colour_key(image, depth=data[24])
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba)
    return white


def _rescale_colour_key(image: Image.Image, depth: int) -> None:
    """Bring a PNG's transparent colour from the file's sample depth to the eight bits of the pixels; Pillow leaves it."""
    key = image.info.get("transparency")
    if image.mode not in ("L", "RGB") or key is None:
        return
    import numpy as np

    samples = [v >> 8 if depth == 16 else (v & 255) * 255 // ((1 << depth) - 1) for v in np.atleast_1d(key).tolist()]
    image.info["transparency"] = tuple(samples) if image.mode == "RGB" else samples[0]


def _eight_bits(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Gray samples of more than eight bits -> (H, W) uint8, white where a PNG's transparent gray is.

    16 bits lose their low byte, as Pillow does with every other 16-bit mode: a picture gives the same pixels whether it is
    stored as gray, gray with alpha or RGB. 32-bit integers and floats declare no white: taken is the first of 1 (floats),
    255 and 65535 that no sample exceeds; failing that, or below zero, the range found is stretched to 0..255.
    """
    import numpy as np

    samples = np.asarray(image)
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (16,))[0]  # 12 in some TIFFs, unscaled
        gray = (samples >> (bits - 8)).astype(np.uint8)
        key = image.info.get("transparency")
        return gray if key is None else np.where(samples == key, np.uint8(255), gray)
    samples = np.nan_to_num(samples.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(samples.min()), float(samples.max())
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    white = next((w for w in whites if low >= 0 and high <= w), None)
    if white:
        black, span = 0.0, white
    else:  # halved, as 32 bits may be too few for the span from end to end; and what is nearer than this is one colour
        samples *= 0.5
        black, span = low / 2, max(high - low, 1e-30) / 2
    return np.asarray(np.clip((samples - black) * (255.0 / span) + 0.5, 0, 255), dtype=np.uint8)
