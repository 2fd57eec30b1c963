"""Numbers in JSON become arrays: the same as the standard library reads, in pieces of any size, and nothing that is no JSON."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import oip_json
from app.errors import MalformedRequest
from app.oip_json import lifted

NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
LISTS = st.recursive(st.lists(NUMBERS, min_size=1), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=30)


def flat(value: Any) -> list[float]:
    return [number for each in value for number in flat(each)] if isinstance(value, list) else [value]


def array(text: str, most: int = 1000) -> list[float]:
    """The numbers of the only list in a text."""
    rest, arrays = lifted(text.encode(), most)
    ((name, found),) = arrays.items()
    assert json.loads(rest) == json.loads(text) | {"data": name}
    assert found.dtype == np.float32
    numbers: list[float] = found.tolist()
    return numbers


@settings(deadline=None, max_examples=60)  # how long one example takes says nothing on a busy machine
@given(LISTS, st.sampled_from([None, 1, "\t"]), st.sampled_from([1 << 16, 400]))
def test_the_numbers_are_those_of_another_reader(value: list[Any], indent: Any, step: int) -> None:
    text = json.dumps({"id": '"data": [1]\\', "data": value, "z": [1]}, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oip_json, "STEP", step)
        found = array(text)
    with np.errstate(over="ignore"):
        assert found == np.array(flat(value), np.float64).astype(np.float32).tolist()


@pytest.mark.parametrize(
    "data",
    [
        "[1,]", "[,1]", "[1[], 2]", "[1, []2]", "[[1[]], 2]",
        "[1 2]", "[1, , 2]", "[1][2]", "[[1][2]]", "[[1], ]", "[1 [, 2]]", "[1, ] 2]", "[[1,]2]", "[1",
        "[1, x]", "[1, nan]", "[NaN]", "[1, Infinity]", "[1, null]", "[true]", "[1, [true]]", '[1, "2"]', "[01]", "[+1]",
        "[.5]", "[1.]", "[1e]", "[0x1]", "[--1]", "[1_0]", "[1e5e5]", "[1" + "0" * 400 + "]", "[1, {}]", "[[[[1]]]", "[1]]]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1 << 16, 4])
def test_what_is_no_list_of_numbers_is_refused(data: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oip_json, "STEP", step)
    text = f'{{"data": {data}}}'.encode()
    try:
        rest, arrays = lifted(text, 1000)
    except MalformedRequest:
        return
    assert arrays, "it was left alone, which is right for texts only"
    with pytest.raises(ValueError, match=r"Extra data|delimiter"):  # what follows the list is JSON's own reader's to refuse
        json.loads(rest)


@pytest.mark.parametrize(
    "text",
    [
        '{"data": ["QUJD"]}', '{"data": []}', '{"data": [[], 1]}', '{"data": "text"}',
        '{"data": {"data": 1}}', '{"x": "\\"data\\": [1]"}',
        '{"Data": [1]}', '{"d\\u0061ta": [1]}', '{"x": ["data", 1]}', "{}", "", '{"shape": [1, 2]}',
    ],
)  # fmt: skip
def test_everything_else_is_left_as_it_is(text: str) -> None:
    assert lifted(text.encode(), 5) == (text.encode(), {})


def test_each_list_has_a_name_that_no_client_can_know() -> None:
    text = b'{"data": [1], "x": {"data": [2, 3]}, "data": ["a"]}'
    (rest, arrays), (other, _) = lifted(text, 5), lifted(text, 5)
    assert rest != other
    assert [found.tolist() for found in arrays.values()] == [[1], [2, 3]]
    assert json.loads(rest) == {"data": ["a"], "x": {"data": list(arrays)[1]}}


def test_numbers_are_counted_over_all_lists() -> None:
    assert array('{"data": [1, 2, 3]}', 3) == [1, 2, 3]
    for text in (b'{"data": [1, 2, 3, 4]}', b'{"data": [1, 2], "x": {"data": [3, 4]}}'):
        with pytest.raises(MalformedRequest, match="more than"):
            lifted(text, 3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"1" * 5000, "the data holds a number of more than 4300 digits"),
        (b"1, -" + b"1" * 5000, "the data holds a number of more than 4300 digits"),
        (b"1" + b" " * 70_000, "the data holds 65536 characters without a comma between"),
        (b"1" + b"[" * 70_000, "the data holds 65536 characters without a comma between"),
    ],
)
def test_what_is_too_long_is_said(data: bytes, words: str) -> None:
    with pytest.raises(MalformedRequest, match=words):
        lifted(b'{"data": [' + data + b"]}", 5)


@pytest.mark.parametrize(
    ("text", "end"),
    [(b'{"data"%b:[1]}', b""), (b'{"data":%b[1]}', b""), (b'{"data": [%b1]}', b""), (b'{"data": [%b1', b"]}")],
)
def test_blanks_and_brackets_are_looked_at_up_to_a_bound(text: bytes, end: bytes) -> None:
    what = b"[" if end else b" "
    for count, names in ((4096, 1), (4097, 0)):
        whole = text % (what * count) + b"]" * (count if end else 0) + end
        assert len(lifted(whole, 5)[1]) == names


def test_beyond_float32_is_infinite() -> None:
    assert array('{"data": [1e300, -1e300, 1e-300]}') == [np.inf, -np.inf, 0]


def test_slashes_before_quotes() -> None:
    assert array('{"a\\\\": "\\\\\\"", "data": [1]}') == [1]
    with pytest.raises(MalformedRequest, match="a text does not end"):
        lifted(b'{"a": "' + b"\\" * 1000 + b'", "data": [1]}', 5)
    with pytest.raises(MalformedRequest, match="a text does not end"):
        lifted(b'{"data": [1], "', 5)


def test_the_number_of_lists_is_bounded() -> None:
    assert len(lifted(b"{" + b'"data":[1],' * 63 + b'"data":[1]}', 100)[1]) == 64
    with pytest.raises(MalformedRequest, match="more than 64 tensors"):
        lifted(b"{" + b'"data":[1],' * 64 + b'"data":[1]}', 100)


def test_what_is_neither_text_nor_data_is_short() -> None:
    numbers = b'{"data": [' + b"1," * 200_000 + b'1], "shape": [%b1]}'
    assert len(lifted(numbers % b" " * 1, 200_001)[1]) == 1
    with pytest.raises(MalformedRequest, match="more than 262144 characters outside of its texts"):
        lifted(numbers % (b" " * 262_144), 200_001)


@pytest.mark.parametrize(
    ("last", "words"), [(b"1", "no list of numbers"), (b"1" * 4300, "no list of numbers"), (b"1" * 4301, "more than 4300 digits")]
)
def test_long_numbers_are_found_behind_others(last: bytes, words: str) -> None:
    with pytest.raises(MalformedRequest, match=words):
        lifted(b'{"data": [' + (b"1" * 4299 + b" ") * 10 + last + b",1]}", 5)


def test_many_numbers_take_no_more_memory_than_their_text() -> None:
    text = b'{"data": [' + b"1," * 200_000 + b"1]}"
    tracemalloc.start()
    try:
        _, arrays = lifted(text, 2_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(found.size for found in arrays.values()) == 200_001
    assert peak < 5 * len(text)  # as objects they are at least 8 bytes each beside the array, and most are 32 more
