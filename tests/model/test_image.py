"""Bytes -> pixels: every format and mode, limits, damage, orientation, threads."""

from __future__ import annotations

import io
import re
import struct
import sys
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray
from PIL import Image, ImageOps

from model.errors import ImageError, ImageOverLimit, ImageTooLarge, ImageUndecodable, ImageUnsupported
from model.image import FORMATS, MAX_RLE_PIXELS, ImageLimits, decode, readable
from model.types import ImageInfo
from tests import images as make
from tests.images import BLUE, GREEN, RED, WHITE
from tests.strategies import damaged_images, disguised_bytes, encoded_images, sample

SIZE = (16, 12)


def pixels(data: bytes, limits: ImageLimits | None = None) -> NDArray[np.int64]:
    image, info = decode(data) if limits is None else decode(data, limits)
    assert image.mode == "RGB"
    assert image.size == (info.width, info.height)
    return np.asarray(image).astype(np.int64)  # (H, W, 3)


def assert_colour(data: bytes, colour: tuple[int, int, int], within: int = 0) -> None:
    assert np.abs(pixels(data) - np.array(colour)).max() <= within


# --- formats and modes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_photograph_back(name: str) -> None:
    photograph = make.photograph(size=(97, 61))
    data = make.SAMPLES[name](photograph)
    image, info = decode(data)
    assert info == ImageInfo(width=97, height=61, format=name)
    error = np.abs(np.asarray(image).astype(int) - np.asarray(photograph).astype(int)).mean()
    assert error < {"GIF": 8, "JPEG": 3, "WEBP": 3, "AVIF": 3, "HEIC": 4}.get(name, 1e-9)


@pytest.mark.parametrize(
    ("data", "colour", "within"),
    [
        pytest.param(make.encode(make.solid(), "JPEG"), RED, 3, id="jpeg"),
        pytest.param(make.encode(make.solid(), "JPEG", progressive=True), RED, 3, id="jpeg-progressive"),
        pytest.param(make.encode(make.solid(mode="L", colour=77), "JPEG"), (77, 77, 77), 1, id="jpeg-grayscale"),
        # Pillow writes CMYK as Adobe does, inverted and with its marker: cyan 0, magenta and yellow full is red.
        pytest.param(make.encode(make.solid(mode="CMYK", colour=(0, 255, 255, 0)), "JPEG"), RED, 3, id="jpeg-cmyk"),
        pytest.param(make.encode(make.solid(mode="CMYK", colour=(0, 0, 0, 255)), "JPEG"), (0, 0, 0), 3, id="jpeg-cmyk-black"),
        pytest.param(make.encode(make.solid(mode="1", colour=1)), WHITE, 0, id="png-1-bit"),
        pytest.param(make.encode(make.solid(mode="L", colour=9)), (9, 9, 9), 0, id="png-gray"),
        pytest.param(make.encode(make.solid(mode="LA", colour=(9, 255))), (9, 9, 9), 0, id="png-gray-alpha"),
        pytest.param(make.encode(make.solid().quantize(4)), RED, 0, id="png-palette"),
        pytest.param(make.encode(make.solid(mode="RGBA", colour=(*RED, 255))), RED, 0, id="png-rgba"),
        pytest.param(make.encode(make.solid(mode="I;16", colour=0x4D12)), (77, 77, 77), 0, id="png-16-bit"),
        pytest.param(make.encode(make.solid(), "WEBP", lossless=True), RED, 0, id="webp-lossless"),
        pytest.param(make.gif(make.solid().quantize(2)), RED, 0, id="gif"),
        pytest.param(make.gif(make.solid(mode="L", colour=5)), (5, 5, 5), 0, id="gif-gray"),
        pytest.param(make.encode(make.solid(), "BMP"), RED, 0, id="bmp"),
        pytest.param(make.encode(make.solid(mode="1", colour=1), "BMP"), WHITE, 0, id="bmp-1-bit"),
        pytest.param(make.bmp_rle(4, 1, b"\x04\x4d\x00\x01"), (77, 77, 77), 0, id="bmp-run-length"),
        pytest.param(make.encode(make.solid(), "TIFF"), RED, 0, id="tiff"),
        pytest.param(make.encode(make.solid(), "TIFF", compression="tiff_adobe_deflate"), RED, 0, id="tiff-deflate"),
        pytest.param(make.encode(make.solid(), "TIFF", compression="jpeg"), RED, 3, id="tiff-jpeg"),
        pytest.param(make.encode(make.solid(), "TIFF", big_tiff=True), RED, 0, id="tiff-big"),
        pytest.param(make.encode(make.solid(mode="CMYK", colour=(0, 255, 255, 0)), "TIFF"), RED, 0, id="tiff-cmyk"),
        pytest.param(make.encode(make.solid().convert("YCbCr"), "TIFF"), RED, 2, id="tiff-ycbcr"),
        pytest.param(make.encode(make.solid(mode="LAB", colour=(255, 128, 128)), "TIFF"), WHITE, 1, id="tiff-lab"),
        pytest.param(make.encode(make.solid().quantize(2), "TIFF"), RED, 0, id="tiff-palette"),
        pytest.param(make.tiff(np.full((3, 4), 0x4D12, "<u2")), (77, 77, 77), 0, id="tiff-16-bit"),
        pytest.param(make.tiff(np.full((3, 4), 0x4D1, "<u2"), bits=12), (77, 77, 77), 0, id="tiff-12-bit"),
        pytest.param(make.tiff(np.full((3, 4, 3), 0x4D12, "<u2"), photometric=2), (77, 77, 77), 0, id="tiff-16-bit-rgb"),
        pytest.param(make.heic(make.solid((64, 64))), RED, 6, id="heic"),
        pytest.param(make.encode(make.solid((64, 64)), "AVIF", quality=100), RED, 4, id="avif"),
    ],
)  # fmt: skip
def test_known_colours_come_back(data: bytes, colour: tuple[int, int, int], within: int) -> None:
    assert_colour(data, colour, within)


@given(encoded_images())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_mode_of_every_format_decodes_at_its_size(case: tuple[str, Image.Image, bytes]) -> None:
    name, original, data = case
    image, info = decode(data)
    assert info == ImageInfo(original.width, original.height, name)
    assert (image.mode, image.size) == ("RGB", original.size)
    if name in ("PNG", "BMP", "TIFF") and original.mode in ("1", "L", "P", "RGB"):
        assert image.tobytes() == original.convert("RGB").tobytes()


RAMP = np.linspace(0, 65535, 256).astype(np.uint16)[None]  # 0, 257, 514 ... 65535: 8-bit levels at 16 bits


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    assert pixels(make.png(RAMP, depth=16, colour=0))[0, :, 0].tolist() == list(range(256))


def test_sixteen_bits_give_the_same_pixels_as_gray_with_alpha_and_as_rgb() -> None:
    noise = np.random.default_rng(0).integers(0, 65536, (5, 7, 1), dtype=np.uint16)
    gray = pixels(make.png(noise, depth=16, colour=0))
    opaque = np.full_like(noise, 65535)
    assert np.array_equal(gray, pixels(make.png(np.concatenate([noise, opaque], -1), depth=16, colour=4)))
    assert np.array_equal(gray, pixels(make.png(np.repeat(noise, 3, -1), depth=16, colour=2)))
    assert np.array_equal(gray, pixels(make.tiff(noise[..., 0])))


@pytest.mark.parametrize(
    ("samples", "grays"),
    [
        (np.array([[0.0, 0.25, 1.0]], "<f4"), [0, 64, 255]),
        (np.array([[0.0, 64.0, 200.0]], "<f4"), [0, 64, 200]),
        (np.array([[0.0, 25700.0, 65535.0]], "<f4"), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], "<f4"), [0, 128, 255]),
        (np.array([[0.0, np.nan, 1.0, np.inf]], "<f4"), [0, 0, 255, 0]),
        (np.array([[7.0, 7.0]], "<f4") * 1e6, [0, 0]),
        (np.array([[-3e38, 0.0, 3e38]], "<f4"), [0, 128, 255]),
        (np.array([[-1e-45, 1e-45]], "<f4"), [0, 0]),
        (np.array([[0, 25700, 65535]], "<i4"), [0, 100, 255]),
        (np.array([[0, 100, 255]], "<i4"), [0, 100, 255]),
        (np.array([[-32768, 0, 32767]], "<i2"), [0, 128, 255]),
        (np.array([[0, 1 << 30]], "<i4"), [0, 255]),
    ],
    ids=[
        "unit",
        "bytes",
        "words",
        "signed",
        "not-finite",
        "flat",
        "largest",
        "smallest",
        "int-words",
        "int-bytes",
        "int16",
        "int32",
    ],
)
def test_samples_without_a_declared_white_fill_the_range(samples: NDArray[Any], grays: list[int]) -> None:
    assert pixels(make.tiff(samples))[0, :, 0].tolist() == grays


# --- transparency is composed on white ---------------------------------------------------------------------------------

PALETTE = make.chunk(b"PLTE", bytes((*RED, *BLUE, *GREEN)))
INDICES = np.array([[0, 1, 2]])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(make.png(np.array([[(*RED, 0), (*RED, 255)]]), colour=6), [WHITE, RED], id="rgba"),
        pytest.param(make.png(np.array([[(*RED, 0), (0, 0, 255, 51)]]), colour=6), [WHITE, (204, 204, 255)], id="rgba-part"),
        pytest.param(make.png(np.array([[(0, 0), (9, 255)]]), colour=4), [WHITE, (9, 9, 9)], id="la"),
        pytest.param(
            make.png(np.array([[(0, 0), (0x0909, 65535)]]), depth=16, colour=4), [WHITE, (9, 9, 9)], id="la-16"),
        pytest.param(
            make.png(np.array([[(0, 0, 0, 0), (65535, 0, 0, 65535)]]), depth=16, colour=6), [WHITE, RED], id="rgba-16"),
        pytest.param(
            make.png(INDICES, colour=3, chunks=PALETTE + make.chunk(b"tRNS", b"\xff\x00\xff")), [RED, WHITE, GREEN],
            id="palette-index"),
        pytest.param(
            make.png(INDICES, colour=3, chunks=PALETTE + make.chunk(b"tRNS", b"\xff\x00\x00")), [RED, WHITE, WHITE],
            id="palette-bytes"),
        pytest.param(
            make.png(INDICES, colour=3, chunks=PALETTE + make.chunk(b"tRNS", b"\xff\x33")), [RED, (204, 204, 255), GREEN],
            id="palette-part"),
        pytest.param(
            make.png(np.array([[RED, BLUE]]), chunks=make.chunk(b"tRNS", struct.pack(">3H", *RED))), [WHITE, BLUE],
            id="rgb-key"),
        pytest.param(
            make.png(np.array([[(0x1234, 0, 0), (0, 0, 65535)]]), depth=16,
                     chunks=make.chunk(b"tRNS", struct.pack(">3H", 0x1234, 0, 0))), [WHITE, BLUE], id="rgb-key-16"),
        pytest.param(
            make.png(np.array([[7, 8]]), colour=0, chunks=make.chunk(b"tRNS", b"\0\x07")), [WHITE, (8, 8, 8)], id="gray-key"),
        pytest.param(
            make.png(np.array([[1, 2]]), depth=2, colour=0, chunks=make.chunk(b"tRNS", b"\0\x01")), [WHITE, (170, 170, 170)],
            id="gray-key-2-bit"),
        pytest.param(
            make.png(np.array([[5, 15]]), depth=4, colour=0, chunks=make.chunk(b"tRNS", b"\0\x0f")), [(85, 85, 85), WHITE],
            id="gray-key-4-bit"),
        pytest.param(
            make.png(np.array([[0, 1]]), depth=1, colour=0, chunks=make.chunk(b"tRNS", b"\0\x00")), [WHITE, WHITE],
            id="gray-key-1-bit"),
        pytest.param(
            make.png(np.array([[0x1234, 0x1235]]), depth=16, colour=0, chunks=make.chunk(b"tRNS", b"\x12\x34")),
            [WHITE, (0x12, 0x12, 0x12)], id="gray-key-16"),
    ],
)  # fmt: skip
def test_png_transparency_becomes_white(data: bytes, expected: list[tuple[int, int, int]]) -> None:
    assert np.abs(pixels(data)[0] - np.array(expected)).max() <= 1


def half_clear(mode: str) -> Image.Image:
    image = Image.new("RGBA", (32, 16), (*BLUE, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 16))
    return image.convert(mode)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(make.encode(half_clear("RGBA"), "WEBP", lossless=True), id="webp"),
        pytest.param(make.encode(half_clear("RGBA"), "AVIF", quality=100), id="avif"),
        pytest.param(make.encode(half_clear("RGBA"), "TIFF"), id="tiff"),
        pytest.param(make.encode(half_clear("RGBA"), "GIF"), id="gif"),
        pytest.param(make.heic(half_clear("RGBA"), quality=100), id="heic"),
    ],
)
def test_transparency_of_other_formats_becomes_white(data: bytes) -> None:
    clear, blue = pixels(data)[8, 4], pixels(data)[8, 28]
    assert np.abs(clear - 255).max() <= 3
    assert np.abs(blue - np.array(BLUE)).max() <= 6


def test_transparent_gray_of_tiff_becomes_white() -> None:
    image = Image.merge("LA", (Image.new("L", (2, 1), 9), Image.frombytes("L", (2, 1), b"\x00\xff")))
    assert pixels(make.encode(image, "TIFF"))[0].tolist() == [[255] * 3, [9] * 3]


# --- frames, orientation, metadata -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_only_the_first_frame_is_read(name: str) -> None:
    assert_colour(make.animation(name), RED, within=4)


def test_a_phones_multi_picture_jpeg_is_a_jpeg() -> None:
    data = make.encode(make.solid(), "MPO", save_all=True, append_images=[make.solid(colour=BLUE)])
    assert decode(data)[1].format == "JPEG"
    assert_colour(data, RED, within=3)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIC"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_upright(name: str, orientation: int) -> None:
    upright = make.quadrants((48, 32))
    data = make.oriented(upright, orientation, name)
    image, info = decode(data)
    assert (info.width, info.height) == image.size == (48, 32)
    for at in ((6, 6), (42, 6), (6, 26), (42, 26)):
        got, expected = image.getpixel(at), upright.getpixel(at)
        assert np.abs(np.subtract(got, expected)).max() <= 12, f"{at}: {got} for {expected}"  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_what_pillow_makes_of_it(orientation: int) -> None:
    data = make.oriented(make.photograph(size=(41, 23)), orientation)
    assert decode(data)[0].tobytes() == ImageOps.exif_transpose(Image.open(io.BytesIO(data))).tobytes()


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage that is no TIFF header",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\x00\x03\xff\xff\xff\xff\x00\x06\x00\x00" * 3,
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02\x36\0\0\0\0\0\0\0",  # orientation as text
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\x00\x63\0\0\0\0\0\0",  # orientation 99
        b"Exif\0\0" + b"\xff" * 60_000,
    ],
    ids=["empty", "no-header", "no-directory", "counts", "text", "99", "large"],
)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_a_broken_exif_block_does_not_spoil_the_picture(exif: bytes, name: str) -> None:
    if name == "PNG":  # Pillow will not write it
        data = make.png(np.full((12, 16, 3), RED), chunks=make.chunk(b"eXIf", exif[6:]))
    else:
        data = make.encode(make.solid(), name, exif=exif)
    assert_colour(data, RED, within=4)


def test_orientation_in_a_chunk_after_the_pixels_counts() -> None:
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\x00\x06\0\0\0\0\0\0"
    data = make.png(np.full((2, 6, 3), RED))
    end = data.index(b"IEND") - 4
    info = decode(data[:end] + make.chunk(b"eXIf", exif) + data[end:])[1]
    assert (info.width, info.height) == (2, 6)


def test_the_icc_profile_is_ignored() -> None:
    photograph = make.photograph(size=(30, 20))
    data = make.encode(photograph, icc_profile=b"\0" * 128 + b"no profile at all")
    assert decode(data)[0].tobytes() == photograph.tobytes()


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_after_the_picture_are_ignored(name: str) -> None:
    data = sample(name)
    assert decode(data + b"\0trailing <b>garbage</b>" * 50)[0].tobytes() == decode(data)[0].tobytes()


@pytest.mark.parametrize(
    "chunk",
    [
        make.chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(200_000_000), 9)),
        make.chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(200_000_000), 9)),
        make.chunk(b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(200_000_000), 9)),
    ],
    ids=["iCCP", "zTXt", "iTXt"],
)
def test_a_metadata_bomb_is_refused(chunk: bytes) -> None:
    data = make.png(np.full((12, 16, 3), RED), chunks=chunk)
    tracemalloc.start()
    with pytest.raises(ImageOverLimit, match=r"at least 4000001 bytes of (ICC profile|text); at most 4000000 are allowed"):
        decode(data)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 20e6  # of the 200 MB that the chunk unpacks to


# --- limits ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks Pillow for memory for pixels fails the test."""

    def refuse(*args: Any) -> Any:
        pytest.fail(f"pixels were made: {args}")

    monkeypatch.setattr("PIL.Image.core.new", refuse)
    monkeypatch.setattr("PIL.Image.core.fill", refuse)


@pytest.mark.usefixtures("no_pixels")
@pytest.mark.parametrize(
    ("data", "width", "height"),
    [
        pytest.param(make.png_of_pixels(10_000, 6_000), 10_000, 6_000, id="60-megapixel-png"),
        pytest.param(make.png_of_pixels(10_000, 9_500), 10_000, 9_500, id="where-pillow-warns"),
        pytest.param(make.png_of_pixels(20_000, 10_000), 20_000, 10_000, id="where-pillow-refuses"),
        pytest.param(make.png(np.zeros((1, 1)), colour=0, size=(2**31 - 1, 2**31 - 1)), 2**31 - 1, 2**31 - 1, id="png-lie"),
        pytest.param(make.png(np.zeros((1, 1)), colour=0, size=(1, 50_000_001)), 1, 50_000_001, id="png-tall"),
        pytest.param(make.gif_bomb(), 65_535, 65_535, id="gif-bomb"),
        pytest.param(make.gif_bomb(9_000, 9_000), 9_000, 9_000, id="gif"),
        pytest.param(make.webp_bomb(b"VP8X", 60_000, 60_000), 60_000, 60_000, id="webp-extended-bomb"),
        pytest.param(make.webp_bomb(b"VP8X", 8_000, 8_000), 8_000, 8_000, id="webp-extended"),
        pytest.param(make.webp_bomb(b"VP8L", 16_384, 16_384), 16_384, 16_384, id="webp-lossless-bomb"),
        pytest.param(make.webp_bomb(b"VP8L", 8_000, 8_000), 8_000, 8_000, id="webp-lossless"),
        pytest.param(make.webp_bomb(b"VP8 ", 16_383, 16_383), 16_383, 16_383, id="webp-lossy-bomb"),
        pytest.param(make.webp_bomb(b"VP8 ", 8_000, 8_000), 8_000, 8_000, id="webp-lossy"),
        pytest.param(make.tiff(np.zeros((1, 8), np.uint8), size=(20_000, 3_000)), 20_000, 3_000, id="tiff"),
    ],
)
def test_too_many_pixels_are_refused_on_the_header(data: bytes, width: int, height: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageTooLarge) as raised:
            decode(data)
    error = raised.value
    assert (error.width, error.height, error.value, error.limit) == (width, height, width * height, 50_000_000)
    assert str(width * height) in str(error)


@pytest.mark.parametrize("name", FORMATS)
def test_the_limit_holds_for_every_format_and_is_inclusive(name: str, request: pytest.FixtureRequest) -> None:
    data = sample(name)
    assert decode(data, ImageLimits(max_pixels=48 * 40))[1].width == 48
    request.getfixturevalue("no_pixels")
    with pytest.raises(ImageTooLarge) as raised:
        decode(data, ImageLimits(max_pixels=48 * 40 - 1))
    assert (raised.value.width, raised.value.height, raised.value.limit) == (48, 40, 1919)


def test_a_gif_frame_larger_than_its_canvas_counts() -> None:
    data = bytearray(make.gif(make.solid((2, 2)).quantize(2)))
    at = data.index(b",") + 1
    for side in (9_000, 65_535):
        data[at + 4 : at + 8] = struct.pack("<HH", side, side)
        with pytest.raises(ImageTooLarge) as raised:
            decode(bytes(data))
        assert (raised.value.width, raised.value.height) == (side, side)


@pytest.mark.parametrize("name", FORMATS)
def test_a_higher_limit_than_pillows_own_is_obeyed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    assert decode(sample(name))[1].width == 48


def test_run_length_bitmaps_have_a_limit_of_their_own() -> None:
    with pytest.raises(ImageTooLarge) as raised:
        decode(make.bmp_rle(2_000, 2_000, b"\xff\x01" * 100))
    assert raised.value.limit == MAX_RLE_PIXELS


@pytest.mark.parametrize("big", [False, True], ids=["classic", "big"])
def test_a_tiff_of_countless_tiles_is_refused(big: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make.encode(Image.new("L", (1, 4)), "TIFF", tiffinfo={278: 1}, big_tiff=big)  # a strip a row
    assert decode(data)[1].height == 4
    monkeypatch.setattr("model.image.MAX_TIFF_TILES", 3)
    with pytest.raises(ImageUndecodable, match="4 strips or tiles; at most 3 are read"):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(sample("JPEG")[:2] + b"\xff\xe5\0\2" * 1_000 + sample("JPEG")[2:], id="jpeg-markers"),
        pytest.param(sample("PNG")[:33] + make.chunk(b"abCd", b"") * 1_000 + sample("PNG")[33:], id="png-chunks"),
        pytest.param(make.bmp_rle(90, 90, (b"\x01\x00" * 90 + b"\0\0") * 90), id="bmp-runs"),
    ],
)
def test_a_file_of_countless_pieces_is_refused(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    decode(data)
    monkeypatch.setattr("model.source.MAX_READS", 1_000)
    with pytest.raises(ImageUndecodable, match="too many small pieces; at most 1000 are read"):
        decode(data)


def test_a_progressive_jpeg_of_countless_scans_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make.encode(make.solid((100, 100)), "JPEG", progressive=True)
    scans = data.count(b"\xff\xda")
    monkeypatch.setattr("model.image.MAX_SCANNED_PIXELS", scans * 10_000)
    assert_colour(data, RED, within=3)
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageUndecodable, match=f"has {scans + 3} scans over 10000 pixels"):
        decode(data[:-2] + last * 3 + data[-2:])


def test_what_looks_like_scans_behind_a_sequential_jpeg_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.image.MAX_SCANNED_PIXELS", 0)
    for mode, colour in (("RGB", RED), ("L", 77), ("CMYK", (0, 255, 255, 0))):
        data = make.encode(make.solid((100, 100), colour, mode), "JPEG") + b"\xff\xda" * 100
        assert decode(data)[1].format == "JPEG"


# --- what is no usable image -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the image is empty: 0 bytes"),
        (b"hello, world", "not an image in any known format"),
        (b"\0" * 1000, "not an image in any known format"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not an image in any known format"),
        (b"BMW is a car", "the BMP image is damaged or cut short"),
        (b"\x89PNG\r\n\x1a\n", "the PNG image is damaged or cut short"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "not an image in any known format"),
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "the AVIF image is damaged or cut short"),
    ],
    ids=["empty", "text", "zeros", "html", "like-bmp", "png-signature", "video", "avif-signature"],
)
def test_what_is_no_image_says_so(data: bytes, text: str) -> None:
    with pytest.raises(ImageUndecodable, match=text):
        decode(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg width='1'>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"8BPS\0\1", "PSD"),
        (b"\xff\x0a\x00", "JPEG XL"),
        (make.encode(make.solid(), "JPEG2000"), "JPEG 2000"),
        (make.encode(make.solid(), "ICO"), "ICO"),
        (make.encode(make.solid(), "PPM"), "PNM"),
        (make.encode(make.solid(), "QOI"), "QOI"),
        (make.encode(make.solid(), "EPS"), "PostScript"),
    ],
    ids=["svg", "svg-xml", "pdf", "psd", "jpeg-xl", "jpeg-2000", "ico", "ppm", "qoi", "eps"],
)
def test_other_formats_are_refused_by_name(data: bytes, name: str) -> None:
    with pytest.raises(ImageUnsupported) as raised:
        decode(data)
    assert raised.value.given == name
    assert raised.value.allowed == FORMATS
    assert str(raised.value) == f"the image format {name} is not supported; allowed are {', '.join(FORMATS)}"


def test_the_allow_list_is_obeyed() -> None:
    with pytest.raises(ImageUnsupported, match="GIF is not supported; allowed are JPEG, PNG"):
        decode(sample("GIF"), ImageLimits(formats=("JPEG", "PNG")))


def test_heic_without_the_extra_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sample("HEIC")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert not readable("HEIC")
    with pytest.raises(ImageUnsupported, match=r"pip install 'sknet-serve\[heif\]'") as raised:
        decode(data)
    assert "HEIC" not in raised.value.allowed


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_short_anywhere_is_an_image_error(name: str) -> None:
    data = sample(name)
    offsets = sorted({*range(0, 64, 3), *range(64, len(data), max(1, len(data) // 60))})
    for offset in offsets:
        try:
            image, _ = decode(data[:offset])
        except ImageError:
            continue
        # Only what follows the pixels was lost: nothing may be missing from the picture.
        assert image.tobytes() == decode(data)[0].tobytes(), f"{offset} of {len(data)} bytes"


@pytest.mark.parametrize("name", FORMATS)
def test_half_a_file_is_undecodable(name: str) -> None:
    with pytest.raises(ImageUndecodable, match=f"the {name} image is damaged or cut short"):
        decode(sample(name)[: len(sample(name)) // 2])


@given(damaged_images())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_file_gives_an_image_or_an_image_error(data: bytes) -> None:
    assert_image_or_image_error(data)


@given(disguised_bytes())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_arbitrary_bytes_give_an_image_or_an_image_error(data: bytes) -> None:
    assert_image_or_image_error(data)


def assert_image_or_image_error(data: bytes) -> None:
    try:
        image, info = decode(data, ImageLimits(max_pixels=1_000_000))
    except ImageError as error:
        if error.__cause__ is not None and str(error.__cause__):
            assert str(error.__cause__) not in str(error)  # noqa: PT017 - either outcome is fine, this text is not
        return
    assert (image.mode, image.size) == ("RGB", (info.width, info.height))


@pytest.mark.parametrize("fault", [MemoryError(), RecursionError(), KeyError("x"), Warning("w"), AssertionError()])
def test_whatever_pillow_raises_becomes_an_image_error(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> Any:
        raise fault

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", fail)
    with pytest.raises(ImageUndecodable, match=r"^the PNG image is damaged or cut short$") as raised:
        decode(sample("PNG"))
    assert raised.value.__cause__ is fault


# --- one process, many threads -----------------------------------------------------------------------------------------


def test_threads_decode_what_one_thread_decodes() -> None:
    files = [*(sample(name) for name in FORMATS), make.oriented(make.quadrants(), 6), make.animation("WEBP"), b"no image"] * 8

    def outcome(data: bytes) -> tuple[str, bytes]:
        try:
            image, info = decode(data)
        except ImageError as error:
            return str(error), b""
        return repr(info), image.tobytes()

    serial = [outcome(data) for data in files]
    with ThreadPoolExecutor(max_workers=8) as pool:
        assert list(pool.map(outcome, files)) == serial


def test_warnings_of_pillow_stay_inside_and_others_still_come_through() -> None:
    truncated = make.encode(make.solid(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")  # Pillow warns about it
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            decode(truncated)
        ours = [f for f in warnings.filters if f[3] == re.compile(r"PIL\.")]
        warnings.warn("mine", UserWarning, stacklevel=1)
    assert [str(w.message) for w in seen] == ["mine"]
    assert [f[0] for f in ours] == ["error", "ignore"]  # set once, not once a call; bombs are errors


def test_exif_repeated_without_end_is_refused_before_it_is_joined() -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    segment = b"\xff\xe1" + (908).to_bytes(2, "big") + b"Exif\0\0" + b"A" * 900
    for count, fits in ((2, True), (20_000, False)):
        data = out.getvalue()[:2] + segment * count + out.getvalue()[2:]
        if fits:
            assert decode(data)[1].format == "JPEG"
        else:
            with pytest.raises(ImageUndecodable, match="repeats its EXIF"):
                decode(data)
