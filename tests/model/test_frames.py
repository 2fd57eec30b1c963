"""Frames counted without decoding any, from files that may lie, loop or never end."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings

from model import containers
from model.errors import ImageOverLimit, ImageUndecodable
from model.frames import count, gif_canvas
from model.image import FORMATS, ImageLimits, decode
from tests import images as make
from tests.strategies import damaged_images, disguised_bytes, sample


@pytest.mark.parametrize("name", FORMATS)
def test_one_picture_is_one_frame(name: str) -> None:
    assert count(name, sample(name), 1000) == 1


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_an_animation_has_its_frames(name: str) -> None:
    assert count(name, make.animation(name), 1000) == 3


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_limit_holds_and_is_inclusive(name: str) -> None:
    data = make.animation(name)
    assert decode(data, ImageLimits(max_frames=3))[1].format == name
    with pytest.raises(ImageOverLimit, match="the image has at least 3 frames; at most 2 are allowed") as raised:
        decode(data, ImageLimits(max_frames=2))
    assert (raised.value.limit, raised.value.value) == (2, 3)


def test_phones_photographs_are_one_frame_whatever_else_they_carry() -> None:
    data = make.encode(make.solid(), "MPO", save_all=True, append_images=[make.solid()] * 3)
    assert decode(data, ImageLimits(max_frames=1))[1].format == "JPEG"


def test_several_pictures_in_one_heic_count() -> None:
    first, *others = (make.solid((64, 64), colour) for colour in (make.RED, make.GREEN, make.BLUE))
    data = make.heic(first, save_all=True, append_images=others)
    assert decode(data, ImageLimits(max_frames=3))[1].format == "HEIC"
    with pytest.raises(ImageOverLimit, match="at least 3 frames; at most 1"):
        decode(data, ImageLimits(max_frames=1))


def test_counting_stops_behind_the_limit() -> None:
    frame = b",\0\0\0\0\1\0\1\0\0\2\1\0\0"
    data = b"GIF89a\1\0\1\0\0\0\0" + frame * 50_000
    assert count("GIF", data, 10) == 11
    assert count("GIF", data + b";", 60_000) == 50_000
    riff = b"RIFF\xff\xff\xff\x7fWEBPVP8X\x0a\0\0\0" + bytes(10)
    assert count("WEBP", riff + b"ANMF\0\0\0\0" * 50_000, 10) == 11


def test_an_announced_number_is_believed() -> None:
    data = sample("PNG")
    for number in (2, 2**32 - 1):
        assert count("PNG", data[:33] + make.chunk(b"acTL", struct.pack(">II", number, 0)) + data[33:], 10) == number


def test_directories_that_point_at_each_other_end() -> None:
    entry = struct.pack("<H", 0)
    data = b"II*\0" + struct.pack("<I", 8) + entry + struct.pack("<I", 14) + entry + struct.pack("<I", 8)
    assert count("TIFF", data, 1000) == 2
    big = b"MM\0+\0\x08\0\0" + struct.pack(">Q", 16) + struct.pack(">QQ", 0, 16)
    assert count("TIFF", big, 1000) == 1


def test_boxes_within_boxes_and_of_every_size() -> None:
    def box(kind: bytes, body: bytes, large: bool = False) -> bytes:
        return (struct.pack(">I4sQ", 1, kind, len(body) + 16) if large else struct.pack(">I4s", len(body) + 8, kind)) + body

    track = box(b"stsz", bytes(4) + struct.pack(">II", 0, 77))
    for kind in (b"stbl", b"minf", b"mdia", b"trak"):
        track = box(kind, track, large=kind == b"mdia")
    assert count("AVIF", box(b"ftyp", b"avis") + box(b"moov", track + track), 10) == 77
    assert count("AVIF", box(b"ftyp", b"avis") + struct.pack(">I4s", 0, b"moov") + track, 10) == 77  # 0: up to the end
    assert count("AVIF", box(b"moov", struct.pack(">I4s", 3, b"trak") + track), 10) == 1  # smaller than its own head


@pytest.mark.parametrize(
    ("name", "data", "limit"),
    [
        ("PNG", b"\x89PNG\r\n\x1a\n" + make.chunk(b"abCd", b"") * 1001, "MAX_PIECES"),
        ("WEBP", b"RIFF\xff\xff\xff\x7fWEBPVP8X" + b"\x0a\0\0\0" + bytes(10) + b"ABCD\0\0\0\0" * 1001, "MAX_PIECES"),
        ("AVIF", struct.pack(">I4s", 8, b"free") * 1001, "MAX_PIECES"),
        ("GIF", b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1x" * 1001 + b"\0;", "MAX_BLOCKS"),
        ("GIF", b"GIF89a\1\0\1\0\0\0\0" + b"!\xfe\0" * 1001, "MAX_BLOCKS"),
    ],
    ids=["png", "webp", "avif", "gif-blocks", "gif-extensions"],
)
def test_countless_pieces_are_refused(name: str, data: bytes, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert count(name, data, 1000) <= 1
    monkeypatch.setattr(containers, limit, 1000)
    with pytest.raises(ImageUndecodable, match="too many small pieces; at most 1000 are read"):
        count(name, data, 1000)


def test_a_chain_of_directories_is_bounded_by_the_frames_that_are_allowed() -> None:
    links = b"".join(struct.pack("<HI", 0, 8 + 6 * (i + 1)) for i in range(5000))
    assert count("TIFF", b"II*\0" + struct.pack("<I", 8) + links, 1000) == 1001


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("length", [0, 7, 12, 20, 40])
def test_a_file_that_ends_early_has_a_number_all_the_same(name: str, length: int) -> None:
    assert 0 <= count(name, sample(name)[:length], 1000) <= 1
    assert gif_canvas(sample(name)[:length]) >= (0, 0)


@given(damaged_images() | disguised_bytes())
@settings(max_examples=100, deadline=None)
def test_any_bytes_have_a_number_of_frames_in_any_format(data: bytes) -> None:
    for name in FORMATS:
        assert count(name, data, 10) >= 0
