"""Any bytes as a multipart form, in any pieces. Only `MalformedRequest` may come out, and pieces must make no difference.

An input is: a byte of how many bytes a piece has, a byte of how long the Content-Type is, the Content-Type, the body.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence

from app.errors import MalformedRequest
from app.forms import Part, read_form

MOST = 3
TYPE = b"multipart/form-data; boundary=edge"
FILE = b'Content-Disposition: form-data; name="file"; filename="%d.jpg"\r\n'
BODIES = (
    b"--edge\r\n" + FILE % 0 + b"Content-Type: image/jpeg\r\n\r\nDATA\r\n--edge--\r\n",
    b'--edge\r\nContent-Disposition: form-data; name="text"\r\n\r\nwords\r\n--edge--',
    b"--edge\r\ncontent-disposition: x; name=file; filename*=UTF-8''%e2%82%ac.png\r\n\r\n\r\n--edg\r\n--edge--\r\nepilogue",
    b"\r\n--edge \t\r\n" + FILE % 0 + b"\r\n\r\n--edge--",
    b"".join(b"--edge\r\n" + FILE % i + b"\r\n%d\r\n" % i for i in range(5)) + b"--edge--",
)


def seeds() -> Iterator[bytes]:
    """Forms in order, whole, in pieces and cut short."""
    for body in BODIES:
        yield packed(0, TYPE, body)
        yield packed(7, TYPE, body)
        yield packed(1, TYPE, body[:-3])
    yield packed(0, b'multipart/form-data; boundary="a b"', b"--a b\r\n" + FILE % 0 + b"\r\n\r\n--a b--")
    yield packed(0, b"multipart/form-data", BODIES[0])


def packed(step: int, content_type: bytes, body: bytes) -> bytes:
    """One input."""
    return bytes((step, len(content_type))) + content_type + body


def check(data: bytes) -> None:
    """The same comes out of the body whole, in pieces and byte by byte, and nothing that was not sent."""
    step, length = (*data[:2], 0, 0)[:2]
    content_type, body = data[2 : 2 + length].decode("latin-1"), data[2 + length :]
    whole = read(content_type, [body])
    assert read(content_type, pieces(body, step or 1)) == whole, "pieces make a difference"
    assert read(content_type, pieces(body, 1)) == whole, "pieces of one byte make a difference"
    check_parts(whole, body)
    check_written(body, step)


def check_parts(parts: Sequence[Part] | None, body: bytes) -> None:
    """What is kept was sent, once, and is no more than was asked for."""
    kept = [part for part in parts or () if part.data]
    assert len(kept) <= MOST
    assert all(part.filename is not None and part.name == "file" for part in kept)
    assert sum(len(part.data) for part in kept) <= len(body)
    at = 0
    for part in kept:
        at = body.index(part.data, at) + len(part.data)


def check_written(content: bytes, step: int) -> None:
    """A form that was written around any content, by the specification, is read as it was written."""
    edge = b"----edge-%d" % step
    if edge in content:
        return
    written = (b"--" + edge + b"\r\n" + FILE % i + b"Content-Type: image/jpeg\r\n\r\n" + content + b"\r\n" for i in range(2))
    body = b"".join(written) + b"--" + edge + b"--\r\n"
    parts = read(f"multipart/form-data; boundary={edge.decode()}", pieces(body, 16 * step or len(body)))
    assert parts == [Part("file", "0.jpg", content), Part("file", "1.jpg", content)]


def read(content_type: str, chunks: Sequence[bytes]) -> list[Part] | None:
    """The parts, or None where the form is refused."""

    async def body() -> AsyncGenerator[bytes, None]:
        for chunk in chunks:
            yield chunk

    running = read_form(content_type, body(), wanted="file", most=MOST)
    try:
        running.send(None)  # nothing in there waits: no event loop is needed
    except StopIteration as done:
        parts: list[Part] = done.value
        return parts
    except MalformedRequest:
        return None
    raise AssertionError("reading a form waited for something")


def pieces(body: bytes, step: int) -> list[bytes]:
    return [body[at : at + step] for at in range(0, len(body), step)]
