"""What of a JSON body is no text is counted, whatever its texts hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import json_texts
from app.errors import MalformedRequest
from app.json_texts import Texts, check_texts

VALUES = st.recursive(
    st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@settings(deadline=None)
@given(VALUES, st.booleans())
def test_the_texts_are_those_of_another_reader(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    texts, found, rest, at = Texts(body), [], b"", 0
    while (span := texts.next()) is not None:
        rest, at = rest + body[at : span[0]], span[1]
        found.append(json.loads(body[slice(*span)].decode("utf-8", "surrogatepass")))
    assert found == list(every_text(value))
    assert b'"' not in rest + body[at:]


def every_text(value: Any) -> Any:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from every_text(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from every_text(each)


@pytest.mark.parametrize("body", ['{"a": %s}', '{"a": "x", "b": [%s]}', '[%s, "x"]', "%s"])
def test_what_stands_beside_texts_is_bounded(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_texts, "MOST_OUTSIDE", 100)
    beside = len(body) - 2 - sum(len(text) for text in ('"a"', '"b"', '"x"') if text in body)
    check_texts((body % ("1" * (100 - beside))).encode())
    with pytest.raises(MalformedRequest, match="more than 100 characters outside of its texts"):
        check_texts((body % ("1" * (101 - beside))).encode())


def test_texts_may_be_long() -> None:
    check_texts(b'{"image": "' + b"1" * 2_000_000 + b'"}')


@pytest.mark.parametrize(("more", "body"), [(b'""', b"%b"), (b'\\"' * 2, b'["%b"]')])
@pytest.mark.parametrize("images", [1, 10_000])
def test_the_number_of_quotes_is_bounded(more: bytes, body: bytes, images: int) -> None:
    most = 10_000 + 4 * images
    check_texts(body % (more * (most - body.count(b'"') // 2)), images)
    with pytest.raises(MalformedRequest, match=f"more than {2 * most} quotes"):
        check_texts(body % (more * (most + 1)), images)


@pytest.mark.parametrize("text", [b'"', b'{"a": "\\"', b'"' + b"\\" * 64 + b'"'])
def test_a_text_that_does_not_end_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedRequest, match="a text does not end"):
        check_texts(text)
