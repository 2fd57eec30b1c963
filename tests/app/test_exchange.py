"""Answers of servers that mean no good: read in pieces of any size, bounded in every direction."""

from __future__ import annotations

import gc
import time
import weakref
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import AppError, BodyTooLarge, SourceUnreachable
from app.exchange import FRAMING_BYTES, READ_BYTES, Answer
from tests.app.origin import answer, ok

CHUNKED = "Transfer-Encoding: chunked"
BODY = b"0123456789" * 3


def chunked(*pieces: bytes, trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))[:-2] + trailer + b"\r\n"


def read(data: bytes, step: int = READ_BYTES, limit: int = 1000, *, eof: bool = False) -> Answer:
    found = Answer(limit)
    for at in range(0, len(data), step):
        found.feed(data[at : at + step])
    if eof:
        found.feed_eof()
    return found


WHOLE = {
    "by length": (ok(BODY), False),
    "chunked": (answer("200 OK", chunked(BODY[:7], BODY[7:]), CHUNKED), False),
    "to the end of the connection": (answer("200 OK", BODY), True),
    "with interim answers": (answer("103 Early Hints", b"", "Location: /x", "Content-Length: 7") + ok(BODY), False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n" + BODY, True),
    "with trailers": (answer("200 OK", chunked(BODY, trailer=b"Content-Encoding: gzip\r\n"), CHUNKED), False),
    "and more than announced": (ok(BODY + b"and so on", length=30), False),
    "and another answer": (ok(BODY) + ok(b"another"), False),
    "with a long length": (answer("200 OK", BODY, f"Content-Length: {len(BODY):05000}"), False),
    "identity": (ok(BODY, "Content-Encoding: identity"), False),
}


@pytest.mark.parametrize("step", [1, 2, 7, 64, READ_BYTES])
@pytest.mark.parametrize("name", WHOLE)
def test_an_image_arrives_however_it_is_sent(name: str, step: int) -> None:
    data, eof = WHOLE[name]
    found = read(data, step, eof=eof)
    assert (found.status, found.complete, bytes(found.body)) == (200, True, BODY)


def test_of_a_redirect_the_headers_are_kept() -> None:
    found = read(answer("302 Found", b"", "Location:  /x ", "location: /y", "Set-Cookie: a=b", "Content-Length: 0"))
    assert (found.status, found.headers[b"location"]) == (302, [b"/x", b"/y"])
    assert set(found.headers) == {b"location", b"content-length"}


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "x-gzip", "GZIP", "identity, gzip", "nonsense"])
def test_a_compressed_answer_is_not_unpacked(coding: str) -> None:
    bomb = zlib.compress(bytes(100_000))
    with pytest.raises(SourceUnreachable, match="compressed"):
        read(ok(bomb, f"Content-Encoding: {coding}"))
    with pytest.raises(SourceUnreachable, match=r"HTTP/1\.1|compressed"):
        read(answer("200 OK", bomb, "Transfer-Encoding: gzip, chunked", f"Content-Encoding: {coding}"))


@pytest.mark.parametrize("length", ["1001", "9" * 18, "0" * 5000 + "1001"])
def test_an_announced_body_over_the_limit_is_refused_before_it_comes(length: str) -> None:
    with pytest.raises(BodyTooLarge) as large:
        read(answer("200 OK", b"", f"Content-Length: {length}"))
    assert (large.value.limit, large.value.value) == (1000, int(length[-18:]))


@pytest.mark.parametrize("head", [(CHUNKED,), ()])
def test_an_endless_body_is_refused_by_counting(head: tuple[str, ...]) -> None:
    piece = bytes(400)
    body = chunked(piece, piece, piece) if head else piece * 3
    with pytest.raises(BodyTooLarge) as large:
        read(answer("200 OK", body, *head), step=100)
    assert 1000 < large.value.value <= 1100


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example.org ESMTP\r\n",
        b"-ERR unknown command\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"<html>HTTP/0.9</html>",
        answer("200 OK", b"x", "Content-Length: 1", "Content-Length: 2"),
        answer("200 OK", b"x", "Content-Length: -1"),
        answer("200 OK", b"x", "Content-Length: 0x1"),
        answer("200 OK", b"x", f"Content-Length: {'9' * 30}"),
        answer("200 OK", b"zz\r\n", CHUNKED),
        answer("200 OK", b"ffffffffffffffffff\r\n", CHUNKED),
        b"HTTP/1.1 200 OK\r\nA\x00B: c\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
    ],
)
def test_what_is_no_http(data: bytes) -> None:
    with pytest.raises(SourceUnreachable, match=r"HTTP/1\.1"):
        read(data, eof=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nA: b\r\n",
        answer("103 Early Hints"),
        ok(BODY, length=31),
        answer("200 OK", b"5\r\n0123", CHUNKED),
        answer("200 OK", b"5\r\n01234\r\n", CHUNKED),
    ],
)
def test_an_answer_that_is_cut_off(data: bytes) -> None:
    with pytest.raises(SourceUnreachable, match="too early"):
        read(data, eof=True)


def test_an_upgrade_is_an_answer_like_any_other_that_is_no_image() -> None:
    with pytest.raises(SourceUnreachable):
        read(answer("101 Switching Protocols", b"x", "Upgrade: h2c", "Connection: upgrade"), eof=True)


MANY = 5_000_000
ENDLESS = {
    "a header": (b"HTTP/1.1 200 OK\r\nA: ", b"x"),
    "a header's name": (b"HTTP/1.1 200 OK\r\n", b"x"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"a:b\r\n"),
    "the first line": (b"HTTP/1.1 200 ", b"x"),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "chunks of a byte": (answer("200 OK", b"", CHUNKED), b"1\r\nx\r\n"),
    "chunk extensions": (answer("200 OK", b"1;", CHUNKED), b"x"),
    "the size of a chunk": (answer("200 OK", b"", CHUNKED), b"0" * 15 + b"1;a=b\r\nx\r\n"),
    "trailers": (answer("200 OK", b"1\r\nx\r\n0\r\n", CHUNKED), b"a:b\r\n"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_all_that_is_no_image_is_bounded(what: str) -> None:
    start, rest = ENDLESS[what]
    data = start + rest * (MANY // len(rest))
    found, pieces = Answer(10**9), iter(range(0, len(data), READ_BYTES))

    def feed() -> None:
        for at in pieces:
            found.feed(data[at : at + READ_BYTES])

    with pytest.raises(SourceUnreachable):
        feed()
    assert next(pieces) <= FRAMING_BYTES + len(found.body) * 3 + 2 * READ_BYTES


def test_small_chunks_cost_little() -> None:
    """A megabyte in chunks of eight bytes: a parser in Python takes 2 s for them, and answers nobody else meanwhile."""
    data = answer("200 OK", chunked(*[b"01234567"] * 131_072), CHUNKED)
    began = time.process_time()
    assert len(read(data, limit=10**7).body) == 2**20
    assert time.process_time() - began < 1


def test_an_image_does_not_wait_for_the_collection_of_circles() -> None:
    found = read(ok(BODY))
    there = weakref.ref(found)
    gc.disable()
    try:
        found.end()
        del found
        assert there() is None
    finally:
        gc.enable()


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.sampled_from([*(data for data, _ in WHOLE.values()), *(s for pair in ENDLESS.values() for s in pair)]), max_size=4
    ),
    st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=5),
    st.integers(1, 100),
    st.booleans(),
)
def test_any_bytes_are_an_answer_or_an_error_of_ours(
    parts: list[bytes], changes: list[tuple[int, bytes]], step: int, eof: bool
) -> None:
    data = b"".join(parts)
    for at, new in changes:
        data = data[:at] + new + data[at + 1 :]
    try:
        found: Answer | AppError = read(data, step, eof=eof)
    except (SourceUnreachable, BodyTooLarge) as error:
        found = error
    if isinstance(found, Answer):
        assert len(found.body) <= 1000 or found.status != 200
