"""JPEGs decoded smaller: where the pixels lie, what is known of the original, and that nothing else changes."""

from __future__ import annotations

import io
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.errors import ImageError, ImageTooLarge, ImageUndecodable
from model.image import DEFAULT_LIMITS, FORMATS, ImageLimits, Picture, decode, decode_reduced
from model.types import ImageInfo
from tests import images as make
from tests.images import BLUE, RED
from tests.strategies import sample

PHOTOGRAPH = make.photograph(size=(203, 149))


def at_least(data: bytes, width: int, height: int, limits: ImageLimits = DEFAULT_LIMITS) -> Picture:
    return decode_reduced(data, limits, lambda *_: (width, height))


def ramp(width: int, height: int) -> Image.Image:
    """Red tells the column, green the row: 0 at the first, 255 at the last edge."""
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    pixels = np.stack([*np.meshgrid(255 * x, 255 * y), np.full((height, width), 128.0)], axis=-1)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def places(picture: Picture) -> tuple[NDArray[Any], NDArray[Any]]:
    """What a ramp shows at each column and row of the picture, from its extent."""
    left, top, right, bottom = picture.extent
    x, y = np.arange(picture.image.width) + 0.5, np.arange(picture.image.height) + 0.5
    return 255 * (x - left) / (right - left), 255 * (y - top) / (bottom - top)


@pytest.mark.parametrize(
    ("least", "size"),
    [
        ((203, 149), (203, 149)), ((102, 75), (203, 149)), ((101, 74), (102, 75)), ((101, 75), (203, 149)), ((51, 38), (102, 75)),
        ((50, 37), (51, 38)), ((25, 18), (26, 19)), ((1, 1), (26, 19)), ((1, 19), (51, 38)), ((26, 1), (51, 38)),
    ],
)  # fmt: skip
def test_the_picture_is_as_small_as_allowed_and_no_smaller(least: tuple[int, int], size: tuple[int, int]) -> None:
    picture = at_least(make.encode(PHOTOGRAPH, "JPEG"), *least)
    assert picture.image.size == size
    assert picture.info == ImageInfo(203, 149, "JPEG")


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 80), st.integers(1, 80), st.sampled_from(range(1, 9)))
@settings(max_examples=150, deadline=None)
def test_any_size_and_orientation_keeps_to_the_least(width: int, height: int, w: int, h: int, orientation: int) -> None:
    picture = at_least(make.oriented(make.solid((width, height)), orientation, "JPEG"), w, h)
    assert picture.info == ImageInfo(width, height, "JPEG")
    left, top, right, bottom = picture.extent
    assert 0 <= left < right <= picture.image.width
    assert 0 <= top < bottom <= picture.image.height
    scale = width / (right - left)
    assert scale == height / (bottom - top)
    assert scale in (1, 2, 4, 8)
    assert picture.image.size == (-(-width // scale), -(-height // scale))
    assert scale == 1 or (right - left >= w and bottom - top >= h)
    assert scale == 8 or width // (2 * scale) < w or height // (2 * scale) < h


def test_the_least_size_is_asked_for_upright() -> None:
    asked: list[tuple[int, int]] = []

    def least(width: int, height: int) -> tuple[int, int]:
        asked.append((width, height))
        return 1, 1

    decode_reduced(make.oriented(PHOTOGRAPH, 6, "JPEG"), DEFAULT_LIMITS, least)
    assert asked == [(203, 149)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(129, 137), (136, 121), (135, 128), (8, 65)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("n", [2, 4, 8])
def test_pixels_lie_where_the_extent_says(n: int, size: tuple[int, int], orientation: int) -> None:
    data = make.oriented(ramp(*size), orientation, "JPEG", quality=100, subsampling=0)
    picture = at_least(data, size[0] // n, size[1] // n)
    assert picture.extent[2] - picture.extent[0] == size[0] / n
    columns, rows = places(picture)
    pixels = np.asarray(picture.image).astype(float)
    inside = slice(1, -1)  # the pixels at the rim show in part what the encoder put beyond the picture
    np.testing.assert_allclose(pixels[:, inside, 0], np.broadcast_to(columns[inside], pixels[:, inside, 0].shape), atol=4)
    np.testing.assert_allclose(pixels[inside, :, 1], np.broadcast_to(rows[inside, None], pixels[inside, :, 1].shape), atol=4)


@pytest.mark.parametrize(
    "options",
    [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}],
    ids=["444", "422", "420", "progressive", "gray", "cmyk"],
)
def test_every_kind_shows_the_same_picture_smaller(options: dict[str, Any]) -> None:
    mode, save = options.get("mode", "RGB"), {k: v for k, v in options.items() if k != "mode"}
    data = make.encode(make.photograph(size=(512, 400)).convert(mode), "JPEG", quality=95, **save)
    whole = decode(data)[0]
    for n in (2, 4, 8):
        picture = at_least(data, 512 // n, 400 // n)
        assert (picture.image.mode, picture.image.size) == ("RGB", (512 // n, 400 // n))
        levels = np.abs(np.asarray(picture.image).astype(int) - np.asarray(whole.reduce(n)))
        assert levels.mean() < 2.5, n


def test_asked_for_the_whole_it_is_what_decode_gives() -> None:
    for name in FORMATS:
        picture = at_least(sample(name), 48, 40)
        image, info = decode(sample(name))
        assert (picture.image.tobytes(), picture.info, picture.extent) == (image.tobytes(), info, (0, 0, 48, 40))


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"JPEG"}))
def test_other_formats_come_whole(name: str) -> None:
    picture = at_least(sample(name), 1, 1)
    assert picture.image.tobytes() == decode(sample(name))[0].tobytes()
    assert picture.extent == (0, 0, 48, 40)


def lossless(width: int, height: int) -> bytes:
    """A JPEG of predicted samples, all 128: one code of one bit for "as predicted"."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 255, marker, len(body) + 2) + body

    frame = segment(0xC3, struct.pack(">BHHB3B", 8, height, width, 1, 1, 0x11, 0))
    table = segment(0xC4, bytes([0, 1, *[0] * 15, 0]))
    scan = segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
    return b"\xff\xd8" + frame + table + scan + bytes((width * height + 7) // 8) + b"\xff\xd9"


def test_a_lossless_jpeg_which_cannot_be_decoded_smaller_comes_whole() -> None:
    picture = at_least(lossless(320, 240), 1, 1)
    assert picture.image.size == (320, 240)
    assert picture.image.getextrema() == ((128, 128),) * 3


def test_a_phones_multi_picture_jpeg_is_decoded_smaller_too() -> None:
    data = make.encode(make.solid((160, 120)), "MPO", save_all=True, append_images=[make.solid((160, 120), BLUE)])
    picture = at_least(data, 1, 1)
    assert (picture.image.size, picture.info) == ((20, 15), ImageInfo(160, 120, "JPEG"))
    assert np.abs(np.asarray(picture.image).astype(int) - np.array(RED)).max() <= 3


# --- limits and damage -------------------------------------------------------------------------------------------------


def test_the_limits_judge_the_size_that_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make.encode(PHOTOGRAPH, "JPEG")
    assert at_least(data, 1, 1, ImageLimits(max_pixels=203 * 149)).image.size == (26, 19)
    monkeypatch.setattr("PIL.Image.core.new", lambda *_: pytest.fail("pixels were made"))
    with pytest.raises(ImageTooLarge) as raised:
        at_least(data, 1, 1, ImageLimits(max_pixels=203 * 149 - 1))
    assert (raised.value.width, raised.value.height) == (203, 149)


def test_the_work_of_countless_scans_is_not_taken_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make.encode(make.solid((100, 100)), "JPEG", progressive=True)
    monkeypatch.setattr("model.image.MAX_SCANNED_PIXELS", data.count(b"\xff\xda") * 10_000 - 1)
    with pytest.raises(ImageUndecodable, match="scans over 10000 pixels"):
        at_least(data, 1, 1)


def outcome(data: bytes, least: int) -> str:
    """The error's type and text, or what is known of the picture."""
    try:
        return repr(decode_reduced(data, ImageLimits(1_000_000), lambda w, h: (w, h) if least == 0 else (least, least)).info)
    except ImageError as error:
        return f"{type(error).__name__}: {error}"


VICTIMS = [
    make.encode(PHOTOGRAPH, "JPEG"),
    make.encode(PHOTOGRAPH, "JPEG", progressive=True),
    make.encode(PHOTOGRAPH.convert("L"), "JPEG", restart_marker_blocks=4),
]


@pytest.mark.parametrize("data", VICTIMS, ids=["sequential", "progressive", "restarts"])
def test_a_jpeg_cut_short_anywhere_ends_as_it_does_at_full_size(data: bytes) -> None:
    seen = set()
    for end in (*range(0, len(data), max(1, len(data) // 150)), *range(len(data) - 8, len(data) + 1)):
        full = outcome(data[:end], 0)
        assert outcome(data[:end], 1) == full, end
        seen.add(full.partition("(")[0].partition(":")[0])
    assert seen == {"ImageUndecodable", "ImageInfo"}


@given(
    st.sampled_from(VICTIMS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
    st.sampled_from((1, 30, 60)),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_jpeg_ends_as_it_does_at_full_size(victim: bytes, patches: list[tuple[float, bytes]], least: int) -> None:
    data = bytearray(victim)
    for place, patch in patches:
        start = int(place * len(data))
        data[start : start + len(patch)] = patch
    assert outcome(bytes(data), least) == outcome(bytes(data), 0)


def test_a_jpeg_is_read_in_one_piece_and_shows_what_pillow_shows() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    data = make.encode(Image.fromarray(noise), "JPEG", quality=95)
    assert len(data) > 3 * 65_536  # the pieces that Pillow would read
    assert decode(data)[0].tobytes() == Image.open(io.BytesIO(data)).tobytes()
    assert decode(data + bytes(200_000))[0].tobytes() == Image.open(io.BytesIO(data)).tobytes()


def test_threads_decode_what_one_thread_decodes() -> None:
    files = [make.oriented(PHOTOGRAPH, orientation, "JPEG") for orientation in range(1, 9)] * 6

    def shown(data: bytes) -> tuple[bytes, object, object]:
        picture = at_least(data, 40, 30)
        return picture.image.tobytes(), picture.info, picture.extent

    serial = [shown(data) for data in files]
    with ThreadPoolExecutor(max_workers=8) as pool:
        assert list(pool.map(shown, files)) == serial
