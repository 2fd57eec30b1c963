"""What an image says about itself: how many bytes of it there are, unpacked, and which way up the picture is.

Sizes are read before anything is unpacked or parsed. Of EXIF only the orientation is read, and by this file: the library's reader
takes every entry apart, for more than a second where somebody wrote the entries for that.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from model.containers import png_chunks, riff_chunks, tiff_entries, tiff_layout
from model.errors import ImageOverLimit

EXIF, ICC, TEXT = "EXIF data", "ICC profile", "text"

_INFLATION = 1032  # deflate makes no more of a byte (zlib's technical details)
_ORIENTATION = 0x0112  # EXIF 2.32, section 4.6.4
_WHOLE_NUMBERS = {3: "H", 4: "I", 8: "h", 9: "i"}  # TIFF 6.0, section 2: types
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_ICC_TAG = 34675  # ICC.1:2022, annex B.4
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def check(name: str, data: bytes, most: int) -> None:
    """Hold metadata that can be found in the file of a PNG, a WebP or a TIFF against its limit in bytes, each kind by itself.

    Raises:
        ImageOverLimit: more than `most` of one kind.
        ImageUndecodable: cut into too many pieces to tell.
        struct.error: a TIFF whose directory lies outside of the file.
    """
    if name not in ("PNG", "WEBP", "TIFF"):
        return
    pieces = list(_pieces(name, data))
    for kind in {kind for kind, *_ in pieces}:
        parts = [(start, max(start, end), packed) for each, start, end, packed in pieces if each == kind]
        if sum((end - start) * (_INFLATION if packed else 1) for start, end, packed in parts) <= most:
            continue  # whatever is packed in there
        size = 0
        for start, end, packed in parts:
            size += _unpacked(data[start:end], most + 1 - size) if packed else end - start
            hold(kind, size, most)


def hold(kind: str, size: int, most: int) -> None:
    """Raise an `ImageOverLimit` where `size` bytes of this kind are more than `most`."""
    if size > most:
        raise ImageOverLimit(f"the image has at least {size} bytes of {kind}; at most {most} are allowed", most, size)


def orientation(exif: bytes, xmp: bytes) -> int:
    """The EXIF orientation, 1 to 8, from an EXIF block or failing that from XMP; 1 where neither tells."""
    found = _exif_orientation(re.sub(rb"^(?:Exif\0\0){1,2}", b"", exif[:12]) + exif[12:])
    if found is None and (match := _XMP_ORIENTATION.search(xmp)):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else 1


def _pieces(name: str, data: bytes) -> Iterator[tuple[str, int, int, bool]]:
    """(kind, start, end, whether it is packed) of each piece of metadata."""
    if name == "PNG":
        yield from _of_png(data)
    elif name == "WEBP" and data[12:16] == b"VP8X":
        names = {b"EXIF": EXIF, b"ICCP": ICC}
        yield from ((names[kind], start, end, False) for kind, start, end in riff_chunks(data) if kind in names)
    elif name == "TIFF":
        for tag, kind, values in tiff_entries(data, tiff_layout(data)):
            if tag == _ICC_TAG:
                yield ICC, 0, values * _TIFF_BYTES.get(kind, 1), False


def _of_png(data: bytes) -> Iterator[tuple[str, int, int, bool]]:
    for kind, start, end in png_chunks(data):
        if kind == b"eXIf":
            yield EXIF, start, end, False
        elif kind == b"tEXt":
            yield TEXT, start, end, False
        elif kind in (b"iCCP", b"zTXt"):  # a name, zero, the method, then the packed rest
            yield ICC if kind == b"iCCP" else TEXT, _behind(data, start, end, 1) + 1, end, True
        elif kind == b"iTXt":  # a name, zero, whether packed, the method, a language, zero, the name translated, zero
            words = _behind(data, start, end, 1)
            yield TEXT, _behind(data, words + 2, end, 2), end, data[words : words + 1] == b"\1"


def _behind(data: bytes, start: int, end: int, zeros: int) -> int:
    for _ in range(zeros):
        start = (data.find(b"\0", start, end) + 1) or end
    return start


def _unpacked(packed: bytes, most: int) -> int:
    """Bytes that these unpack to, counted up to `most`; what is damaged unpacks to nothing more."""
    try:
        return len(zlib.decompressobj().decompress(packed, most))
    except zlib.error:
        return 0


def _exif_orientation(exif: bytes) -> int | None:
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, at)
        for place in range(at + 2, at + 2 + 12 * entries, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", exif, place)
            if tag == _ORIENTATION and kind in _WHOLE_NUMBERS and values:
                number = order + _WHOLE_NUMBERS[kind]
                where = place + 8
                if values * struct.calcsize(number) > 4:  # it stands elsewhere
                    (where,) = struct.unpack_from(order + "I", exif, where)
                return int(struct.unpack_from(number, exif, where)[0])
    except struct.error:  # it ends in the middle
        pass
    return None
