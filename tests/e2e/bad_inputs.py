"""Everything wrong that one can send to `/classify`, as data: what is sent, and the status and slug that must come back.

`python -m tests.e2e.bad_inputs` starts a service, sends all of it and prints the table.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
from PIL import Image

BODY_LIMIT = 2_000_000  # set low in these tests, so that nothing large must travel


@dataclass(frozen=True)
class Case:
    """One bad request. `send` gets a client and returns the answer."""

    name: str
    status: int
    slug: str
    send: Callable[[httpx.Client], httpx.Response]
    numbers: dict[str, object] = field(default_factory=dict)  # fields that the problem must carry


def jpeg(width: int = 64, height: int = 48) -> bytes:
    """A small valid JPEG."""
    out = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(out, "JPEG")
    return out.getvalue()


def gif_frames(count: int) -> bytes:
    """A GIF of one pixel in many frames."""
    frame = b",\0\0\0\0\1\0\1\0\0\2\2L\1\0"
    return b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + frame * count + b";"


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces any size, with a few bytes of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def pcx() -> bytes:
    """An image, but of a format that nobody photographs in."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PCX")
    return out.getvalue()


def gif_bomb() -> bytes:
    """A GIF of a few bytes whose screen is 65,000 by 65,000."""
    out = io.BytesIO()
    Image.new("P", (8, 8)).save(out, "GIF")
    data = bytearray(out.getvalue())
    data[6:10] = struct.pack("<HH", 65000, 65000)
    return bytes(data)


def _raw(content: bytes, media: str = "application/octet-stream", **more: str) -> Callable[[httpx.Client], httpx.Response]:
    return lambda c: c.post("/classify", content=content, headers={"Content-Type": media, **more})


def _file(content: bytes, query: str = "", name: str = "file") -> Callable[[httpx.Client], httpx.Response]:
    return lambda c: c.post(f"/classify{query}", files={name: ("x.jpg", content)})


def _chunked(client: httpx.Client) -> httpx.Response:
    def body() -> Iterator[bytes]:
        for _ in range(60):
            yield bytes(50_000)

    return client.post("/classify", content=body(), headers={"Content-Type": "image/jpeg"})


def _json(text: bytes) -> Callable[[httpx.Client], httpx.Response]:
    return _raw(text, "application/json")


def _multipart(body: bytes, media: str = "multipart/form-data; boundary=b") -> Callable[[httpx.Client], httpx.Response]:
    return _raw(body, media)


GOOD = jpeg()
_PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\n\r\n'
MALFORMED = "malformed-request"

CASES = (
    Case("empty body, no media type", 400, MALFORMED, lambda c: c.post("/classify")),
    Case("empty raw body", 400, MALFORMED, _raw(b"", "image/jpeg")),
    Case("empty file", 400, MALFORMED, _file(b"")),
    Case("no part named file", 400, MALFORMED, _file(GOOD, name="image")),
    Case("file as text", 400, MALFORMED, _multipart(b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n')),
    Case("two files", 400, MALFORMED, lambda c: c.post("/classify", files=[("file", ("a", GOOD)), ("file", ("b", GOOD))])),
    Case("multipart without boundary", 400, MALFORMED, _multipart(b"x", "multipart/form-data")),
    Case(
        "multipart with wrong boundary",
        400,
        MALFORMED,
        _multipart(_PART + GOOD + b"\r\n--b--\r\n", "multipart/form-data; boundary=q"),
    ),
    Case("multipart cut off", 400, MALFORMED, _multipart(_PART + GOOD[:200])),
    Case("multipart without names", 400, MALFORMED, _multipart(b"--b\r\nContent-Type: image/jpeg\r\n\r\nx\r\n--b--\r\n")),
    Case("broken base64", 400, MALFORMED, _json(b'{"image": "@@@not base64@@@"}')),
    Case("empty base64", 400, MALFORMED, _json(b'{"image": ""}')),
    Case("data URI without base64", 400, MALFORMED, _json(b'{"image": "data:image/png,abc"}')),
    Case("broken JSON", 400, MALFORMED, _json(b'{"image": ')),
    Case("JSON of another shape", 400, MALFORMED, _json(b'{"picture": "x"}')),
    Case("JSON with both forms", 400, MALFORMED, _json(b'{"image": "eA==", "url": "http://127.0.0.1/"}')),
    Case("JSON that is no object", 400, MALFORMED, _json(b"[1, 2]")),
    Case("JSON nested 100,000 deep", 400, MALFORMED, _json(b"[" * 100_000)),
    Case("JSON that is not UTF-8", 400, MALFORMED, _json(b'{"image": "\xff\xfe"}')),
    Case("JSON of a million values", 400, MALFORMED, _json(b"[" + b"1," * 900_000 + b"1]")),
    Case("a slash too many", 404, "not-found", lambda c: c.post("/classify/", content=GOOD)),
    Case("image by url", 403, "source-forbidden", _json(b'{"url": "http://127.0.0.1:1/x.jpg"}')),
    Case("unknown route", 404, "not-found", lambda c: c.get("/nope")),
    Case("unknown model", 404, "model-not-found", lambda c: c.get("/models/nope")),
    Case("wrong method", 405, "method-not-allowed", lambda c: c.get("/classify")),
    Case("body too large, announced", 413, "body-too-large", _file(bytes(BODY_LIMIT + 1)), {"limit": BODY_LIMIT}),
    Case("body too large, chunked", 413, "body-too-large", _chunked, {"limit": BODY_LIMIT}),
    Case("wrong media type", 415, "unsupported-media-type", _raw(GOOD, "text/plain")),
    Case("no media type", 415, "unsupported-media-type", lambda c: c.post("/classify", content=GOOD)),
    Case("urlencoded form", 415, "unsupported-media-type", lambda c: c.post("/classify", data={"file": "x"})),
    Case("text as an image", 422, "image-undecodable", _file(b"this is a text and no image at all\n" * 20)),
    Case("random bytes", 422, "image-undecodable", _raw(bytes(range(256)) * 8)),
    Case("truncated JPEG", 422, "image-undecodable", _file(GOOD[: len(GOOD) // 2])),
    Case("JPEG header only", 422, "image-undecodable", _file(GOOD[:20])),
    Case("GIF bomb", 422, "image-too-large", _file(gif_bomb()), {"limit": 50_000_000, "value": 65000 * 65000}),
    Case(
        "60-megapixel PNG", 422, "image-too-large", _file(png_header(10_000, 6_000)), {"limit": 50_000_000, "value": 60_000_000}
    ),
    Case("PNG of 70,000 x 1", 422, "image-over-limit", _file(png_header(70_000, 1)), {"limit": 65_535, "value": 70_000}),
    Case("GIF of 1,001 frames", 422, "image-over-limit", _file(gif_frames(1001)), {"limit": 1000, "value": 1001}),
    Case("PNG without pixels", 422, "image-undecodable", _file(png_header(100, 100))),
    Case(
        "SVG, a format not served",
        422,
        "image-unsupported",
        _file(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    ),
    Case("PCX, too rare to be named", 422, "image-undecodable", _file(pcx())),
    Case("top_k=0", 422, "invalid-parameter", _file(GOOD, "?top_k=0"), {"limit": 10, "value": 0}),
    Case("top_k=-1", 422, "invalid-parameter", _file(GOOD, "?top_k=-1"), {"limit": 10, "value": -1}),
    Case("top_k=10**9", 422, "invalid-parameter", _file(GOOD, f"?top_k={10**9}"), {"limit": 10, "value": 10**9}),
    Case("top_k=x", 422, "invalid-parameter", _file(GOOD, "?top_k=x"), {"parameter": "top_k"}),
    Case("top_k of 5,000 digits", 422, "invalid-parameter", _file(GOOD, "?top_k=" + "9" * 5000), {"parameter": "top_k"}),
    Case("min_score=2", 422, "invalid-parameter", _file(GOOD, "?min_score=2"), {"parameter": "min_score"}),
    Case("min_score=nan", 422, "invalid-parameter", _file(GOOD, "?min_score=nan"), {"parameter": "min_score"}),
    Case("X-Timeout-Ms: soon", 422, "invalid-parameter", _raw(GOOD, "image/jpeg", **{"X-Timeout-Ms": "soon"})),
    Case("batch of none", 400, MALFORMED, lambda c: c.post("/classify/batch", files={"other": ("x", GOOD)})),
    Case(
        "batch of 33",
        422,
        "invalid-parameter",
        lambda c: c.post("/classify/batch", files=[("files", ("x", b"x"))] * 33),
        {"limit": 32},
    ),
)


def good(client: httpx.Client) -> httpx.Response:
    """A request in order, to see that the service still answers."""
    answer = client.post("/classify", files={"file": ("x.jpg", GOOD)})
    assert answer.status_code == 200, answer.text
    return answer


def main() -> None:
    from tests.e2e.server import serve

    with serve("--max-body-bytes", str(BODY_LIMIT)) as server, server.client() as client:
        print(f"| {'sent':34} | asked | got | slug | after |\n|---|---|---|---|---|")
        for case in CASES:
            answer = case.send(client)
            after = good(client).status_code
            print(f"| {case.name:34} | {case.status} | {answer.status_code} | {answer.json()['type']} | {after} |")


if __name__ == "__main__":
    main()
