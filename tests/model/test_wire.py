"""What crosses to and from a decoding process; how little of it is believed is also shown in `test_guard`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import wire
from model.errors import ImageError, ImageOverLimit, ImageTooLarge, ImageUndecodable, ImageUnsupported
from model.image import DEFAULT_LIMITS, ImageLimits
from model.wire import Answer, Rubbish


def read(data: bytes) -> Answer:
    head = data[: wire.HEAD_BYTES]
    length = wire.text_bytes(head)
    assert len(data) == wire.HEAD_BYTES + length
    return wire.unpack(head, data[wire.HEAD_BYTES :])


@pytest.mark.parametrize(
    "error",
    [
        ImageUndecodable("the GIF image is damaged or cut short"),
        ImageTooLarge(70_000, 1_000, 50_000_000),
        ImageOverLimit("the image has at least 11 frames; at most 10 are allowed", 10, 11),
    ],
)
def test_an_error_arrives_as_it_was_raised(error: ImageError) -> None:
    arrived = wire.error_of(read(wire.answer_of(error).pack()))
    assert (type(arrived), str(arrived), vars(arrived)) == (type(error), str(error), vars(error))


def test_other_errors_arrive_as_their_text() -> None:
    arrived = wire.error_of(read(wire.answer_of(ImageUnsupported("PSD", ("JPEG",))).pack()))
    assert type(arrived) is ImageUndecodable
    assert "PSD is not supported" in str(arrived)


def test_numbers_beyond_their_field_and_long_texts_are_cut() -> None:
    assert read(wire.answer_of(ImageTooLarge(2**40, 1, 7)).pack()).width == 2**32 - 1
    assert len(read(Answer(wire.DAMAGED, text="ä" * 1000).pack()).text) == wire.MAX_TEXT_BYTES


def test_memory_that_ran_out_is_told_apart() -> None:
    error = ImageUndecodable("the TIFF image is damaged or cut short")
    error.__cause__ = MemoryError()
    assert wire.answer_of(error).kind == wire.NO_MEMORY


@given(st.binary(min_size=wire.HEAD_BYTES, max_size=wire.HEAD_BYTES), st.binary(max_size=50))
def test_any_bytes_are_an_answer_or_rubbish(head: bytes, text: bytes) -> None:
    kind = head[:1] if text[:1] < b"\x80" else b"D"
    try:
        wire.text_bytes(kind + head[1:])
        answer = wire.unpack(kind + head[1:], text)
        wire.error_of(answer)
    except Rubbish:
        return
    assert answer.text.isprintable()


@pytest.mark.parametrize("kind", [wire.READY, wire.TAKEN, wire.PICTURE, wire.NO_MEMORY])
def test_what_tells_of_no_error_is_none(kind: bytes) -> None:
    with pytest.raises(Rubbish):
        wire.error_of(Answer(kind))


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [(1, 1, True), (1000, 1000, True), (1001, 1000, False), (0, 1, False), (1, 0, False), (2000, 1, True), (2001, 1, False)],
)
def test_a_size_is_held_against_the_limits(width: int, height: int, fits: bool) -> None:
    answer, limits = Answer(wire.PICTURE, width, height), ImageLimits(max_pixels=1_000_000, max_side=2000)
    if fits:
        wire.check_size(answer, limits)
    else:
        with pytest.raises(Rubbish, match=f"{width} x {height}"):
            wire.check_size(answer, limits)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 65_535), (65_535, 1), (7000, 7000), (400_000, 3)])
def test_strips_cover_every_row_once(width: int, height: int) -> None:
    strips = list(wire.strips(width, height))
    assert [row for top, bottom in strips for row in range(top, bottom)] == list(range(height))
    assert all(3 * width * (bottom - top) <= max(1_000_000, 3 * width) for top, bottom in strips)


def test_the_default_limits_are_in_an_order() -> None:
    assert wire.Order.load(wire.Order(DEFAULT_LIMITS, 5.0, 10**9).dump()).limits == DEFAULT_LIMITS
