"""What bounds the work of decoding in this process: sides, bombs inside of files, and files made to take long."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin, PngImagePlugin

from model import containers, image, source
from model.errors import ImageOverLimit, ImageTooLarge, ImageUndecodable
from model.image import FORMATS, ImageLimits, decode
from tests import images as make
from tests.images import RED
from tests.strategies import sample


@pytest.mark.parametrize("name", FORMATS)
def test_the_longer_side_is_limited_and_the_limit_is_inclusive(name: str) -> None:
    assert decode(sample(name), ImageLimits(max_side=48))[1].width == 48
    with pytest.raises(ImageOverLimit, match="the longer side of the image has 48 pixels; at most 47 are allowed") as raised:
        decode(sample(name), ImageLimits(max_side=47))
    assert (raised.value.limit, raised.value.value) == (47, 48)


def test_either_side_may_be_the_longer_one() -> None:
    for size in ((3, 300), (300, 3)):
        with pytest.raises(ImageOverLimit, match="has 300 pixels"):
            decode(make.encode(make.solid(size)), ImageLimits(max_side=299))


def test_the_default_side_is_what_most_formats_can_say() -> None:
    assert decode(make.png_of_pixels(65_535, 1))[1].width == 65_535
    with pytest.raises(ImageOverLimit, match="has 65536 pixels; at most 65535"):
        decode(make.png_of_pixels(65_536, 1))


@pytest.mark.parametrize("kind", [Image.DecompressionBombError, Image.DecompressionBombWarning])
def test_pillows_complaints_about_bombs_are_errors_of_ours(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def complain(*_: object) -> None:
        raise kind("Image size exceeds limit")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", complain)
    with pytest.raises(ImageUndecodable, match="the PNG image is larger inside than its header says"):
        decode(sample("PNG"))


def test_pillows_warning_about_a_bomb_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    decode(sample("PNG"))  # from now on the process has its filters
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10)
    with pytest.raises(Image.DecompressionBombWarning):
        Image._decompression_bomb_check((4, 4))


# --- files made to take long -------------------------------------------------------------------------------------------


def jpeg(**options: object) -> bytes:
    return make.encode(make.photograph(size=(200, 150)), "JPEG", **options)


class Counted(source.JpegSource):
    """Remembers how often it was read."""

    made: list[Counted] = []  # noqa: RUF012 - emptied by the test

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.made.append(self)


def test_restart_markers_cost_no_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart marker behind every block: Pillow hands the scan over whole, and the decoder passes over them."""
    monkeypatch.setattr(image, "JpegSource", Counted)
    Counted.made.clear()
    plain, marked = decode(jpeg())[0], decode(jpeg(restart_marker_blocks=1))[0]
    assert marked.tobytes() == plain.tobytes()
    first, second = Counted.made
    assert second.reads <= first.reads + 5  # those of the segment that announces them


def test_a_height_that_comes_later_is_no_height() -> None:
    """A frame of no lines, with the number behind the scan (DNL, ITU-T T.81, section B.2.5)."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 2] = b"\0\0"
    data[-2:] = b"\xff\xdc\0\4\0\x96\xff\xd9"
    with pytest.raises(ImageUndecodable, match="the JPEG image is damaged or cut short"):
        decode(bytes(data))


def test_rubbish_between_markers_is_bounded_by_what_it_may_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two markers any byte is passed over, one by one."""
    data = jpeg()
    decode(data[:20] + bytes(500) + data[20:])
    monkeypatch.setattr(source, "MAX_READS", 400)
    with pytest.raises(ImageUndecodable, match="too many small pieces; at most 400 are read"):
        decode(data[:20] + bytes(500) + data[20:])


def idats(piece: int) -> bytes:
    """A PNG whose pixels come in pieces of so many bytes."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 1 + 30 * 3), dtype=np.uint8)
    noise[:, 0] = 0
    packed = zlib.compress(noise.tobytes())
    body = b"".join(make.chunk(b"IDAT", packed[i : i + piece]) for i in range(0, len(packed), piece))
    header = struct.pack(">IIBBBBB", 30, 30, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + make.chunk(b"IHDR", header) + body + make.chunk(b"IEND", b"")


def test_pixels_in_pieces_of_one_byte_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode(idats(1))[0].tobytes() == decode(idats(10_000))[0].tobytes()
    monkeypatch.setattr(containers, "MAX_PIECES", 1000)
    with pytest.raises(ImageUndecodable, match="too many small pieces; at most 1000 are read"):
        decode(idats(1))


def test_an_interlaced_png_is_judged_by_its_header() -> None:
    data = bytearray(make.png_of_pixels(10_000, 6_000))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(ImageTooLarge):
        decode(bytes(data))


def test_pixels_beyond_the_picture_are_not_unpacked() -> None:
    """Far behind a picture of 16 x 12: were it unpacked, a bomb would be, and the rubbish at its end would be an error."""
    rows = b"".join(b"\0" + bytes(RED) * 16 for _ in range(12))
    header = make.chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 12, 8, 2, 0, 0, 0))
    packer = zlib.compressobj()
    packed = packer.compress(rows + bytes(1_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(zlib.error):
        zlib.decompressobj().decompress(packed + b"\xff" * 5_000)
    data = b"\x89PNG\r\n\x1a\n" + header + make.chunk(b"IDAT", packed + b"\xff" * 5_000) + make.chunk(b"IEND", b"")
    assert decode(data)[0].tobytes() == bytes(RED) * (16 * 12)


@pytest.mark.parametrize("kind", [b"VP8X", b"VP8L", b"VP8 "])
def test_the_canvas_of_a_webp_is_judged_before_its_decoder_makes_one(kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        pytest.fail("a decoder was made")

    monkeypatch.setattr("PIL.WebPImagePlugin._webp.WebPAnimDecoder", fail)
    with pytest.raises(ImageTooLarge):
        decode(make.webp_bomb(kind, 16_000, 16_000))


def test_the_resolution_of_a_jpeg_is_nobodys_business() -> None:
    """Pillow would take the EXIF block apart for it as the file is opened."""
    assert JpegImagePlugin.JpegImageFile.getexif is not image._class("JPEG")[1].getexif
    assert issubclass(image._class("JPEG")[1], JpegImagePlugin.JpegImageFile)


def test_texts_of_a_png_are_unpacked_up_to_our_limit_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1_000_000)
    decode(sample("PNG"), ImageLimits(max_metadata_bytes=70_000))
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1_000_000
    decode(sample("PNG"), ImageLimits(max_metadata_bytes=3_000_000))
    assert PngImagePlugin.MAX_TEXT_CHUNK == 3_000_000
