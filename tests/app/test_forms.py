"""multipart/form-data: what is kept, what is counted, and that no file is made."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import MalformedRequest
from app.forms import Part, read_form
from tests.app.asgi import serving

CONTENT_TYPE = "multipart/form-data; boundary=b"


def form(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    return (
        b"".join(b"--b\r\nContent-Disposition: form-data; " + d.encode() + b"\r\n\r\n" + data + b"\r\n" for d, data in parts)
        + end
    )


async def read(data: bytes, *, step: int = 1 << 20, content_type: str = CONTENT_TYPE, most: int = 1) -> list[Part]:
    async def body() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(data), step):
            yield data[start : start + step]

    return await read_form(content_type, body(), wanted="file", most=most)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"--", b"\r\n--", b"b", b"-", b"x" * 2000, b"\0"])), st.integers(1, 50))
async def test_any_bytes_come_back_however_they_are_cut(pieces: list[bytes], step: int) -> None:
    data = b"".join(pieces)
    while b"\r\n--b" in data:  # taking one boundary out may make another
        data = data.replace(b"\r\n--b", b"")
    (part,) = await read(form(('name="file"; filename="a"', data)), step=step)
    assert part == Part("file", "a", data)


async def test_only_what_is_wanted_is_kept() -> None:
    sent = form(
        ('name="other"; filename="a"', b"1"),
        ('name="file"', b"2"),
        ('name="file"; filename="c"', b"3"),
        ('name="file"; filename=""', b"4"),
        ('name="file"; filename="e"', b"5"),
    )
    assert await read(sent, most=2) == [
        Part("other", "a"),
        Part("file", None),
        Part("file", "c", b"3"),
        Part("file", "", b"4"),
        Part("file", "e"),
    ]


async def test_names_are_utf_8_or_else_latin_1() -> None:
    sent = b'--b\r\ncontent-DISPOSITION: form-data; name="file"; filename="\xc3\xa4\xff"\r\nX: y\r\n\r\nz\r\n--b--'
    assert await read(sent) == [Part("file", "\xc3\xa4\xff", b"z")]
    assert (await read(sent.replace(b"\xff", b"")))[0].filename == "ä"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        pytest.param(b"", "not complete", id="nothing"),
        pytest.param(form(('name="file"; filename="a"', b"x"), end=b""), "not complete", id="no end"),
        pytest.param(form(('filename="a"', b"x")), "cannot be read", id="no name"),
        pytest.param(b"--b\r\n\r\nx\r\n--b--\r\n", "cannot be read", id="no disposition"),
        pytest.param(form(*[('name="file"; filename="a"', b"")] * 1002), "number of parts", id="files"),
        pytest.param(form(*[('name="a"', b"")] * 101), "number of parts", id="texts"),
        pytest.param(form(('name="a"', b"x" * 1_100_000)), "cannot be read", id="a long text"),
        pytest.param(b"--b\r\n" + b"A: b\r\n" * 50 + b"\r\nx\r\n--b--\r\n", "cannot be read", id="many headers"),
        pytest.param(b"--b\r\nA: " + b"b" * 10_000 + b"\r\n\r\nx\r\n--b--\r\n", "cannot be read", id="a long header"),
    ],
)
@pytest.mark.parametrize("step", [1000, 10_000_000])
async def test_what_cannot_be_read(sent: bytes, words: str, step: int) -> None:
    with pytest.raises(MalformedRequest, match=words):
        await read(sent, step=step)


@pytest.mark.parametrize("before", [b"x", b"\rx", b"\r\nx\r\n", b"\nx-\r\n"])
async def test_words_before_the_first_boundary_are_refused_however_they_are_cut(before: bytes) -> None:
    sent = before + form(('name="file"; filename="a"', b"y"))
    for step in (1, 2, 3, 1000):
        with pytest.raises(MalformedRequest, match="cannot be read"):
            await read(sent, step=step)


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_lines_before_the_first_boundary_may_be_empty(step: int) -> None:
    assert await read(b"\r\n\n\r\n" + form(('name="file"; filename="a"', b"y")), step=step) == [Part("file", "a", b"y")]


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", 'multipart/form-data; boundary=""', "multipart/form-data; boundary=" + "b" * 999]
)
async def test_boundaries_that_are_none(content_type: str) -> None:
    with pytest.raises(MalformedRequest, match="boundary"):
        await read(
            b'--\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n----\r\n', content_type=content_type
        )


async def test_the_limits_of_parts_themselves_are_read() -> None:
    assert len(await read(form(*[('name="file"; filename="a"', b"")] * 1001, *[('name="a"', b"x")] * 100))) == 1101


@pytest.mark.parametrize(
    "filler",
    [
        pytest.param(b"\r\n--bX" * 100_000, id="lines that begin as boundaries do"),
        pytest.param(b"\r\n--b" + b" " * 600_000, id="spaces behind a boundary"),
        pytest.param(b"\r\n--b" + b" \t" * 300_000, id="spaces and tabs behind a boundary"),
        pytest.param(b"\r\n--b--" + b"\r\n--b" * 100_000, id="boundaries behind the end"),
    ],
)
@pytest.mark.parametrize("step", [7, 10_000, 10_000_000])
async def test_what_the_parser_reads_byte_by_byte_is_refused_before_it_does(
    monkeypatch: pytest.MonkeyPatch, filler: bytes, step: int
) -> None:
    read_bytes = 0
    write = MultipartParser.write

    def counted(parser: MultipartParser, data: bytes) -> int:
        nonlocal read_bytes
        read_bytes += len(data)
        return write(parser, data)

    monkeypatch.setattr(MultipartParser, "write", counted)
    with pytest.raises(MalformedRequest, match="cannot be read"):
        await read(form(('name="file"; filename="a"', filler)), step=step)
    assert read_bytes < 20_000


@pytest.mark.parametrize(
    ("content_type", "disposition"),
    [
        pytest.param('multipart/form-data; boundary="' + ";" * 65_000, 'name="file"; filename="a"', id="of the body"),
        pytest.param(CONTENT_TYPE, 'filename=x; name="' + ";" * 4100, id="of a part"),
    ],
)
async def test_parameters_without_number_are_refused_before_they_are_split(
    monkeypatch: pytest.MonkeyPatch, content_type: str, disposition: str
) -> None:
    split: list[int] = []

    def counted(header: str) -> tuple[bytes, dict[bytes, bytes]]:
        split.append(header.count(";"))
        return parse_options_header(header)

    monkeypatch.setattr("app.forms.parse_options_header", counted)
    with pytest.raises(MalformedRequest, match="cannot be read"):
        await read(form((disposition, b"x")), content_type=content_type)
    assert max(split, default=0) < 100


async def test_a_name_may_hold_semicolons() -> None:
    name = "".join(f"&#{code};" for code in range(0x1F600, 0x1F628))  # smileys, as a page in another encoding sends them
    assert await read(form((f'name="file"; filename="{name}"', b"x"))) == [Part("file", name, b"x")]


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_a_little_padding_is_none_to_refuse(step: int) -> None:
    sent = form(('name="file"; filename="a"', b"x"), ('name="file"; filename="b"', b"y"))
    padded = sent.replace(b"x\r\n--b\r\n", b"x\r\n--b" + b" " * 63 + b"\r\n")
    assert len(padded) == len(sent) + 63
    assert await read(padded, step=step, most=2) == [Part("file", "a", b"x"), Part("file", "b", b"y")]


async def test_no_upload_makes_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a temporary file was asked for")

    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", refuse)
    async with serving() as service:
        for path, name in (("/classify", "file"), ("/classify/batch", "files")):
            assert (await service.client.post(path, files={name: bytes(5_000_000)})).status_code == 200
