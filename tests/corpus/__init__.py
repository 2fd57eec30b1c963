"""Broken image files of every supported format, made the same each time; no service is needed.

`sources` are intact files, `damage` breaks any of them, `segments`, `chunks` and `directories` lie in the way of one format each,
`bombs` ask for too much, `polyglots` are something else.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from tests.corpus.bombs import bombs
from tests.corpus.chunks import iso_lies, png_lies, webp_lies
from tests.corpus.damage import File, damaged, spliced
from tests.corpus.directories import bmp_lies, bmp_runs, gif_lies, tiff_lies, tiff_made
from tests.corpus.polyglots import no_images, polyglots
from tests.corpus.segments import jpeg_lies
from tests.corpus.sources import Source, sources

DAMAGED = 1500
LIARS = {  # which files the lies are told about
    "JPEG": (jpeg_lies, ("baseline", "progressive", "exif")),
    "PNG": (png_lies, ("palette", "interlaced", "animated")),
    "WEBP": (webp_lies, ("lossy", "lossless", "animated")),
    "GIF": (gif_lies, ("interlaced", "animated")),
    "BMP": (bmp_lies, ("rgb", "rle")),
    "TIFF": (tiff_lies, ("lzw", "jpeg", "tiles")),
    "AVIF": (iso_lies, ("lossy", "animated")),
    "HEIC": (iso_lies, ("alpha",)),
}


@dataclass(frozen=True, slots=True)
class Broken:
    """One file: `name` is its format, kind and number; `format` is "none" where it was never meant to be an image."""

    name: str
    format: str
    data: bytes


def corpus(files: int | None = None, seed: int = 0) -> list[Broken]:
    """So many of the files in an order that mixes them, the same for the same `seed`; all where no number is given.

    No two are the same bytes. Where more are wanted than there are by themselves, more is damaged. Some are good images in spite
    of what was done to them.
    """
    rng = random.Random(seed)
    intact = sources()
    made = [*_made(intact, rng)]
    made += islice(damaged(intact, rng), max(DAMAGED, (files or 0) - len(made)))
    numbers: Counter[tuple[str, str]] = Counter()
    found = []
    for format_, kind, data in {data: (format_, kind, data) for format_, kind, data in reversed(made)}.values():
        numbers[format_, kind] += 1
        found.append(Broken(f"{format_.lower()}-{kind}-{numbers[format_, kind]}", format_, data))
    rng.shuffle(found)
    return found[:files]


def _made(intact: tuple[Source, ...], rng: random.Random) -> Iterator[File]:
    lies = (LIARS[source.format][0](source) for source in intact if source.variant in LIARS[source.format][1])
    return chain(chain.from_iterable(lies), bmp_runs(), tiff_made(), spliced(intact), polyglots(intact), bombs(), no_images(rng))


__all__ = ["Broken", "Source", "corpus", "sources"]
