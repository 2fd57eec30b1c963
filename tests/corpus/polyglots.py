"""Files that are two things at once, or that are no images and only named like some."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Iterator, Sequence

from tests.corpus.chunks import riff, riff_chunks
from tests.corpus.damage import File
from tests.corpus.segments import segment
from tests.corpus.sources import Source
from tests.images import chunk

HTML = b"<!DOCTYPE html><html><body><script>alert(document.domain)</script></body></html>"
SCRIPT = b"=1;/*"
PDF = b"%PDF-1.7\n1 0 obj<</Type/Catalog/OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
SHELL = b"#!/bin/sh\nrm -rf /\n"


def polyglots(sources: Sequence[Source]) -> Iterator[File]:
    """Two things in one, of one file of each format."""
    first = {source.format: source.data for source in reversed(sources)}
    for name, data in first.items():
        for tail in (_zip(), HTML, PDF, SHELL, data, bytes(100_000)):
            yield name, "polyglot-behind", data + tail
        for head in (PDF, HTML, SHELL, b"\n", b"\0" * 512, b"\xef\xbb\xbf"):
            yield name, "polyglot-before", head + data
    yield "JPEG", "polyglot-inside", first["JPEG"][:2] + segment(0xFE, HTML) + first["JPEG"][2:]
    yield (
        "JPEG",
        "polyglot-inside",
        first["JPEG"][:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + HTML) + first["JPEG"][2:],
    )
    yield "PNG", "polyglot-inside", first["PNG"][:33] + chunk(b"tEXt", b"Comment\0" + HTML) + first["PNG"][33:]
    yield "PNG", "polyglot-inside", first["PNG"][:33] + chunk(b"huGe", _zip()) + first["PNG"][33:]
    yield "GIF", "polyglot-inside", b"GIF89a" + SCRIPT + first["GIF"][11:] + b"*/alert(1)"
    yield "WEBP", "polyglot-inside", riff([*riff_chunks(first["WEBP"]), (b"HTML", HTML)])
    yield "BMP", "polyglot-inside", b"BM" + SCRIPT[:4] + first["BMP"][6:] + b"*/=alert(1)"
    for a in first:
        for b in first:
            if a != b:
                yield a, "polyglot-both", first[a] + first[b]


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("page.html"), HTML)
    return out.getvalue()


def no_images(rng: random.Random) -> Iterator[File]:
    """Nothing, one byte, text, other files, noise, signatures alone."""
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    entities = b'<!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><svg>&b;</svg>'
    texts = (
        b"",
        b"\0",
        b"\xff",
        b"\n",
        b"B",
        b"BM",
        b"hello, I am a photograph\n",
        "größer".encode(),
        "text".encode("utf-16"),
        b"x" * 1_000_000,
    )
    others = (
        HTML,
        PDF,
        SHELL,
        _zip(),
        svg,
        entities,
        b'{"image": "QUJD"}',
        b"--edge\r\n\r\n--edge--",
        b"MZ" + bytes(200),
        b"\x7fELF" + bytes(200),
    )
    programs = (
        b"%!PS\n(run) run\n",
        b"8BPS\0\1" + bytes(40),
        b"P6\n99999 99999\n255\n",
        b"push graphic-context\nfill 'url(x)'\n",
    )
    refused = (
        b"\0\0\0\x0cJXL \r\n\x87\n",
        b"\xff\x0a\0",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"DDS " + bytes(130),
        b"qoif" + bytes(20),
        b"\0\0\1\0\1\0",
    )
    for data in (*texts, *others, *programs, *refused):
        yield "none", "text", data
    signatures = (
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WEBP",
        b"GIF89a",
        b"II*\0",
        b"MM\0*",
        b"MM\0+",
        b"\0\0\0\x1cftypavif",
        b"\0\0\0\x18ftypheic",
    )
    for signature in signatures:
        for rest in (b"", bytes(1000), b"\xff" * 1000, rng.randbytes(1000), rng.randbytes(100_000)):
            yield "none", "signature", signature + rest
    for length in (1, 2, 3, 7, 100, 5000, 2_000_000):
        yield "none", "noise", rng.randbytes(length)
