"""The encoded bytes as Pillow reads them, piece by piece: so many pieces and no more.

What a decoder really reads is counted here, however it finds its way through a file. This file knows nothing of limits in
settings, nor of pixels.
"""

from __future__ import annotations

import io

from model.errors import ImageUndecodable

# Every chunk, marker or run is parsed by Python code with a few reads: 20 MB of empty ones would take 10 s, this many take 1 s.
MAX_READS = 400_000
# Pillow takes these segments of a JPEG apart in Python: 20 MB of them took one to two seconds, of EXIF in small ones 74.
MAX_SEGMENTS = 50  # of each kind; one or two are usual
_SEGMENTS = {b"\xdb": "quantisation tables", b"\xed": "Photoshop data"}


class Source(io.BytesIO):
    """The encoded bytes, readable only so many times."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise ImageUndecodable(f"the image is cut into too many small pieces; at most {MAX_READS} are read")
        return super().read(size)


class JpegSource(Source):
    """The same, on guard against countless segments of kinds that are costly to read; each arrives by a read of its own."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._marker = b""
        self._counts: dict[str, int] = {}

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        if size == 1:
            self._marker = piece  # the last byte that was asked for by itself; the length and the segment follow
        elif size != 2 and (kind := "EXIF data" if piece.startswith(b"Exif\0\0") else _SEGMENTS.get(self._marker)):
            self._counts[kind] = self._counts.get(kind, 0) + 1
            if self._counts[kind] > MAX_SEGMENTS:
                raise ImageUndecodable(f"the JPEG image is damaged: it repeats its {kind} more than {MAX_SEGMENTS} times")
        return piece
