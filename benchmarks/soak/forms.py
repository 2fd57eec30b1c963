"""What the clients of a soak send: requests as bytes, each with the status that must come back, by kind of client.

Good ones are real photographs in several formats through every entrance. It knows nothing of connections.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.bench.client import post
from app.bench.load import form
from tests.images import SAMPLES, gif_bomb, photograph, png_of_pixels

BODY_LIMIT = 2_000_000  # set low, so that what is too large need not be much
HOST = "soak"
KINDS = {"good": 0.74, "bad": 0.08, "invalid": 0.05, "slow": 0.04, "leaving": 0.06, "oversized": 0.03}  # parts of all requests
PHOTOGRAPHS = {"chelsea": (451, 300), "coffee": (300, 200), "astronaut": (256, 256)}
_FIRST_LABEL = re.compile(rb'"predictions":\[\{"index":\d+,"label":"([^"]*)"')


@dataclass(frozen=True)
class Form:
    """One request, and what must come back: a status and, where images are good, the first class of each."""

    name: str
    head: bytes
    body: bytes
    status: str = "200"
    labels: tuple[bytes, ...] | None = None

    def knows(self, labels: tuple[bytes, ...]) -> Form:
        """The same, with what the service said of it when it had nothing else to do."""
        return replace(self, labels=labels)


def labels_of(body: bytes) -> tuple[bytes, ...]:
    """The first class of every image of an answer."""
    return tuple(_FIRST_LABEL.findall(body))


def _raw(name: str, media: str, body: bytes, status: str = "200", path: str = "/classify") -> Form:
    return Form(name, post(HOST, path, media, len(body)), body, status)


def _file(name: str, data: bytes, status: str = "200") -> Form:
    return _raw(name, *form(data, "file"), status)


def _json(name: str, value: object, path: str = "/classify", status: str = "200") -> Form:
    return _raw(name, "application/json", json.dumps(value).encode(), status, path)


def _parts(name: str, images: Sequence[bytes]) -> Form:
    parts = [form(data, "files") for data in images]
    end = b"\r\n--" + parts[0][0].partition("boundary=")[2].encode() + b"--\r\n"
    body = b"\r\n".join(body.removesuffix(end) for _, body in parts) + end
    return _raw(name, parts[0][0], body, path="/classify/batch")


def good() -> tuple[Form, ...]:
    """Photographs in order, through every entrance."""
    pictures = {name: photograph(name, size) for name, size in PHOTOGRAPHS.items()}
    made: list[Form] = []
    for name, picture in pictures.items():
        files = {kind: SAMPLES[kind](picture) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}
        made += [_file(f"{name} {kind}, form", files[kind]) for kind in ("JPEG", "PNG", "WEBP")]
        made += [_raw(f"{name} {kind}, raw", f"image/{kind.lower()}", data) for kind, data in files.items()]
        made.append(_json(f"{name} WEBP, JSON", {"image": base64.b64encode(files["WEBP"]).decode()}))
    jpegs = [SAMPLES["JPEG"](picture) for picture in pictures.values()]
    made.append(_parts("three, batch form", jpegs))
    made.append(_json("two, batch JSON", {"images": [base64.b64encode(data).decode() for data in jpegs[:2]]}, "/classify/batch"))
    return tuple(made)


def bad() -> tuple[Form, ...]:
    """Images that are none, or none that is served."""
    whole = SAMPLES["JPEG"](photograph())
    return (
        _file("half a JPEG", whole[: len(whole) // 2], "422"),
        _raw("half a PNG", "image/png", SAMPLES["PNG"](photograph(size=(64, 64)))[:3000], "422"),
        _file("text", b"this is a text and no image at all\n" * 50, "422"),
        _raw("60 megapixels", "image/png", png_of_pixels(10_000, 6_000), "422"),
        _raw("GIF bomb", "image/gif", gif_bomb(), "422"),
        _json("broken base64", {"image": "@@@"}, status="400"),
    )


def invalid() -> tuple[Form, ...]:
    """Requests that are not in order."""
    image = SAMPLES["JPEG"](photograph(size=(64, 48)))
    return (
        _raw("no JSON", "application/json", b'{"image": ', "400"),
        _json("two sources", {"image": "eA==", "url": "http://127.0.0.1/"}, status="400"),
        _raw("text/plain", "text/plain", image, "415"),
        _raw("form without a boundary", "multipart/form-data", image, "400"),
        _raw("top_k=0", "image/jpeg", image, "422", "/classify?top_k=0"),
        _raw("no such route", "image/jpeg", image, "404", "/nowhere"),
        _raw("wrong method", "image/jpeg", b"x", "405", "/livez"),
    )


def oversized() -> tuple[Form, ...]:
    """More than the body may have, announced or not."""
    body = bytes(BODY_LIMIT + 100_000)
    pieces = b"".join(b"%x\r\n%b\r\n" % (65_536, body[at : at + 65_536]) for at in range(0, len(body) - 65_536, 65_536))
    head = post(HOST, "/classify", "image/jpeg", 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return (_raw("announced", "image/jpeg", body, "413"), Form("in chunks", head, pieces + b"0\r\n\r\n", "413"))
