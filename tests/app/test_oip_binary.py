"""The binary form of tensors: what is written is read again, and what is no such thing is refused with its numbers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BodyTooLarge, MalformedRequest
from app.oip_binary import elements, packed, split

QUIET = settings(deadline=None, max_examples=60)  # how long one example takes says nothing on a busy machine
PARTS = st.lists(st.binary(max_size=50), max_size=6)


@QUIET
@given(PARTS)
def test_elements_come_back(parts: list[bytes]) -> None:
    data = packed(parts)
    assert len(data) == sum(len(part) + 4 for part in parts)
    assert elements(data, len(parts), 50) == parts
    assert elements(memoryview(b"x" + data)[1:], len(parts), 50) == parts


@QUIET
@given(PARTS.filter(bool), st.data())
def test_cut_or_longer_data_is_refused(parts: list[bytes], data: st.DataObject) -> None:
    whole = packed(parts)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + b"\0"):
        with pytest.raises(MalformedRequest):
            elements(wrong, len(parts), 50)


@QUIET
@given(PARTS, st.binary(max_size=9))
def test_tensors_come_back_in_their_order(parts: list[bytes], head: bytes) -> None:
    body = head + b"".join(parts)
    assert [bytes(view) for view in split(body, len(head), [len(part) for part in parts])] == parts


@pytest.mark.parametrize(
    ("data", "count", "words"),
    [
        (b"", 1, "the data has 0 elements; its shape announces 1"),
        (packed([b"a"]), 2, "has 1 elements; its shape announces 2"),
        (packed([b"a", b"b"]), 1, "5 bytes follow the 1 elements"),
        (packed([b"a"]) + b"\1\0", 2, "element 1 is cut short: 2 bytes are left, and its length takes 4"),
        (struct.pack("<I", 2**32 - 1) + b"abc", 1, "element 0 is cut short: it should have 4294967295 bytes, 3 are left"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, count: int, words: str) -> None:
    with pytest.raises(MalformedRequest, match=words):
        elements(data, count, 50)


def test_an_element_that_is_too_large() -> None:
    with pytest.raises(BodyTooLarge) as caught:
        elements(packed([b"a" * 9, b"b" * 11]), 2, 10)
    assert (caught.value.limit, caught.value.value) == (10, 11)


@pytest.mark.parametrize("sizes", [[], [4], [6], [2, 2], [9, -4], [2**62, 1]])
def test_sizes_that_are_not_those_of_the_body(sizes: list[int]) -> None:
    with pytest.raises(MalformedRequest, match="after the 3 bytes of JSON the body has 5 bytes"):
        split(b"{ }12345", 3, sizes)


def test_nothing_is_copied_but_elements() -> None:
    body = b"{}" + bytes(8)
    (view,) = split(body, 2, [8])
    assert view.obj is body


def test_no_more_is_said_of_sizes_than_a_line_takes() -> None:
    with pytest.raises(MalformedRequest, match=r"binary_data_size say 1{100}$"):
        split(b"{}", 2, [int("1" * 4000)] * 10)
