"""EXIF, ICC profiles and texts: held against their limit before they are unpacked, and read no further than needed."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from model import metadata
from model.errors import ImageOverLimit
from model.image import ImageLimits, decode
from tests import images as make
from tests.images import RED, chunk
from tests.strategies import damaged_images

SAMPLES = np.full((12, 16, 3), RED)
LIMITS = ImageLimits(max_metadata_bytes=70_000)


def png(*chunks: bytes) -> bytes:
    return make.png(SAMPLES, chunks=b"".join(chunks))


def packed(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def jpeg_with(*segments: bytes) -> bytes:
    """A JPEG without the density that would spare it the EXIF block, with these segments."""
    data = make.encode(make.solid(), "JPEG")
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + b"".join(segments) + data[20:]


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def exif_of(size: int) -> bytes:
    """An EXIF block of so many bytes, with orientation 6 and the rest unused."""
    block = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\x00\x06\0\0\0\0\0\0"
    return block.ljust(size, b"\0")


def jpeg_exif(size: int) -> bytes:
    block = exif_of(size - 6)
    parts = [block[i : i + 60_000] for i in range(0, len(block), 60_000)]
    return jpeg_with(*(segment(0xE1, b"Exif\0\0" + part) for part in parts))


def jpeg_icc(size: int) -> bytes:
    parts = [bytes(n) for n in (60_000, size - 60_000)]
    return jpeg_with(*(segment(0xE2, b"ICC_PROFILE\0" + bytes((i + 1, 2)) + part) for i, part in enumerate(parts)))


def webp(kind: bytes, size: int) -> bytes:
    option = "exif" if kind == b"EXIF" else "icc_profile"
    return make.encode(make.solid(), "WEBP", **{option: (exif_of if kind == b"EXIF" else bytes)(size)})


CASES: dict[str, tuple[str, Callable[[int], bytes]]] = {  # a file with so many bytes of the kind
    "png-exif": (metadata.EXIF, lambda n: png(chunk(b"eXIf", exif_of(n)))),
    "png-late-exif": (metadata.EXIF, lambda n: png()[:-12] + chunk(b"eXIf", exif_of(n)) + png()[-12:]),
    "png-icc": (metadata.ICC, lambda n: png(chunk(b"iCCP", b"name\0\0" + packed(n)))),
    "png-text": (metadata.TEXT, lambda n: png(chunk(b"tEXt", b"a\0".ljust(n, b"x")))),
    "png-packed-text": (metadata.TEXT, lambda n: png(chunk(b"zTXt", b"a\0\0" + packed(n)))),
    "png-unicode": (metadata.TEXT, lambda n: png(chunk(b"iTXt", b"a\0\1\0\0\0" + packed(n)))),
    "png-plain-unicode": (metadata.TEXT, lambda n: png(chunk(b"iTXt", b"a\0\0\0\0\0" + bytes(n)))),
    "png-texts": (metadata.TEXT, lambda n: png(*(chunk(b"zTXt", b"a\0\0" + packed(n // 10)) for _ in range(10)))),
    "jpeg-exif": (metadata.EXIF, jpeg_exif),
    "jpeg-icc": (metadata.ICC, jpeg_icc),
    "webp-exif": (metadata.EXIF, lambda n: webp(b"EXIF", n)),
    "webp-icc": (metadata.ICC, lambda n: webp(b"ICCP", n)),
    "tiff-icc": (metadata.ICC, lambda n: make.encode(make.solid(), "TIFF", icc_profile=bytes(n))),
    "avif-icc": (metadata.ICC, lambda n: make.encode(make.solid(), "AVIF", icc_profile=bytes(n))),
    "avif-exif": (metadata.EXIF, lambda n: make.encode(make.solid(), "AVIF", exif=b"MM\0*\0\0\0\x08\0\0".ljust(n, b"\0"))),
}


@pytest.mark.parametrize("name", CASES)
def test_the_limit_holds_and_is_inclusive(name: str) -> None:
    kind, made = CASES[name]
    assert decode(made(70_000), LIMITS)[0].mode == "RGB"
    with pytest.raises(ImageOverLimit, match=rf"at least 700\d\d bytes of {kind}; at most 70000 are allowed") as raised:
        decode(made(70_010), LIMITS)
    assert raised.value.limit == 70_000
    assert 70_000 < (raised.value.value or 0) <= 70_010


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt"])
def test_more_than_pillow_allows_by_itself_is_read_where_the_limit_allows_it(kind: bytes) -> None:
    decode(png(chunk(kind, b"a\0\0" + zlib.compress(os.urandom(2_000_000), 1))))  # Pillow's own limit is 1 MiB


def test_a_bomb_costs_no_more_memory_than_the_limit() -> None:
    data = png(chunk(b"zTXt", b"a\0\0" + packed(20_000_000)) * 20)
    tracemalloc.start()
    with pytest.raises(ImageOverLimit):
        decode(data)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 10e6


def test_what_is_small_is_not_unpacked_to_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(chunk(b"iCCP", b"name\0\0" + packed(3_000)), chunk(b"zTXt", b"a\0\0" + packed(3_000)))
    monkeypatch.setattr(metadata, "_unpacked", None)
    metadata.check("PNG", data, 4_000_000)


@pytest.mark.parametrize("body", [b"", b"name", b"name\0", b"name\0\0", b"name\0\0broken", b"\0" * 20])
@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf"])
def test_broken_chunks_are_measured_without_complaint(kind: bytes, body: bytes) -> None:
    metadata.check("PNG", png(chunk(kind, body)), 20)


@given(damaged_images(), st.integers(0, 100_000))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_measured_or_refused(data: bytes, most: int) -> None:
    for name in ("PNG", "WEBP", "JPEG", "GIF"):
        try:
            metadata.check(name, data, most)
        except ImageOverLimit as error:
            assert (error.value or 0) > most  # noqa: PT017 - either outcome is fine, this one has its number


# --- orientation -------------------------------------------------------------------------------------------------------


def pillows(exif: bytes) -> int:
    read = Image.Exif()
    read.load(exif)
    value = int(read.get(ExifTags.Base.Orientation, 1))
    return value if 1 <= value <= 8 else 1


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0", b"Exif\0\0Exif\0\0"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4, 8, 9])
def test_the_orientation_is_read_as_pillow_reads_it(prefix: bytes, order: str, kind: int) -> None:
    number = {3: "H2x", 4: "I", 8: "h2x", 9: "i"}[kind]
    for value in range(10):
        entries = struct.pack(order + "HHI4s", 0x010F, 2, 2, b"x\0\0\0")
        entries += struct.pack(order + "HHI" + number, 0x0112, kind, 1, value)
        head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 2)
        exif = prefix + head + entries + bytes(4)
        assert metadata.orientation(exif, b"") == pillows(exif) == (value if 1 <= value <= 8 else 1)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_exif_block_is_read_without_complaint(data: st.DataObject) -> None:
    exif = bytearray(Image.Exif().tobytes() if data.draw(st.booleans()) else exif_of(40))
    for _ in range(data.draw(st.integers(0, 6))):
        exif[data.draw(st.integers(0, len(exif) - 1))] = data.draw(st.integers(0, 255))
    assert 1 <= metadata.orientation(bytes(exif[: data.draw(st.integers(0, len(exif)))]), b"") <= 8


def test_xmp_tells_where_exif_does_not() -> None:
    assert metadata.orientation(b"", b'<x tiff:Orientation="8"/>') == 8
    assert metadata.orientation(b"", b"<tiff:Orientation>3</tiff:Orientation>") == 3
    assert metadata.orientation(b"", b'<x tiff:Orientation="9"/>') == 1
    assert metadata.orientation(exif_of(40), b'<x tiff:Orientation="8"/>') == 6


def test_a_text_of_imagemagick_tells_the_orientation() -> None:
    hexadecimal = exif_of(26).hex()
    data = make.png(
        np.full((2, 6, 3), RED), chunks=chunk(b"tEXt", f"Raw profile type exif\0\nexif\n      26\n{hexadecimal}\n".encode())
    )
    assert decode(data)[0].size == (2, 6)


def test_nothing_of_an_exif_block_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """400,000 fractions where the resolution should be took Pillow more than a second."""
    entries = struct.pack("<HHII", 0x011A, 5, 7_000, 50) + struct.pack("<HHII", 0x0112, 3, 1, 6)
    exif = b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    data = jpeg_with(segment(0xE1, b"Exif\0\0" + exif.ljust(50, b"\0") + struct.pack("<II", 1, 1) * 7_000))

    def fail(*_: object) -> object:
        pytest.fail("a fraction was made")

    monkeypatch.setattr("PIL.TiffImagePlugin.IFDRational", fail)
    assert decode(data)[0].size == (12, 16)  # turned


@pytest.mark.parametrize(
    ("marker", "body", "kind"),
    [
        (0xDB, b"\0" + bytes(range(1, 65)), "quantisation tables"),
        (0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 9, "Photoshop data"),
        (0xE1, b"Exif\0\0" + bytes(20), "EXIF data"),
    ],
)
def test_segments_that_are_costly_to_read_may_not_be_repeated_without_end(marker: int, body: bytes, kind: str) -> None:
    decode(jpeg_with(*[segment(marker, body)] * 45))
    with pytest.raises(Exception, match=f"it repeats its {kind} more than 50 times"):
        decode(jpeg_with(*[segment(marker, body)] * 51))
