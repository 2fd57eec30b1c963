"""Encoded bytes -> RGB pixels, for bytes that nobody vouches for.

The format is decided by content, never by a name or a media type. Formats and pixel counts are checked on the header,
before any pixel is decoded; of several frames only the first is decoded. EXIF orientation is applied, transparency is
composed on white, deeper samples become eight bits. ICC profiles are ignored: the networks were trained on pixels read so.
Who needs less than the whole size may say so: a JPEG is then decoded smaller.

Pillow's format classes are called directly rather than through `Image.open`, which warns about large images through a
process-wide filter before their size can be seen, and takes the photographs of phones (MPO) for something else than JPEG.

Everything may be called from many threads at once. This file knows nothing of networks, input sizes or HTTP.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import re
import struct
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, features

from model import jpeg
from model.errors import ImageError, ImageTooLarge, ImageUndecodable, ImageUnsupported
from model.types import ImageInfo

FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIC")

# Pillow decodes run-length BMP by a loop in Python, 0.1 us a pixel and 0.5 us a run, with the interpreter held.
MAX_RLE_PIXELS = 1_000_000
# One tile of a TIFF costs 5 us whatever its size: 50 megapixels in tiles of 16x16 have 195,000.
MAX_TIFF_TILES = 200_000
# Every chunk, marker or run is parsed by Python code with a few reads: 20 MB of empty ones would take 10 s, this many take 1 s.
MAX_EXIF_SEGMENTS = 50  # one or two are usual; Pillow joins them, each time copying all before: 20,000 took 74 s
MAX_READS = 400_000
# A scan of a multi-scan JPEG visits every pixel, 1.6 ns each, however short it is: 20 MB could hold 250,000. Ten are usual.
MAX_SCANNED_PIXELS = 2_000_000_000

_CLASSES = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIC": ("pillow_heif", "HeifImageFile"),
}

# The second half is recognised only to be refused by name.
_MAGIC = re.compile(
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<WEBP>RIFF....WEBP)|(?P<GIF>GIF8[79]a)|(?P<BMP>BM)"
    rb"|(?P<TIFF>II\*\0|MM\0\*|II\+\0|MM\0\+)"
    rb"|(?P<JPEG_XL>\xff\x0a|\0\0\0\x0cJXL )|(?P<JPEG_2000>\0\0\0\x0cjP  |\xff\x4f\xff\x51)|(?P<JPEG_XR>II\xbc)"
    rb"|(?P<PSD>8BPS)|(?P<ICO>\0\0[\1\2]\0)|(?P<ICNS>icns)|(?P<OpenEXR>\x76\x2f\x31\x01)|(?P<HDR>\#\?RADIANCE)|(?P<DDS>DDS )"
    rb"|(?P<QOI>qoif)|(?P<XCF>gimp xcf)|(?P<PDF>%PDF)|(?P<PostScript>%!PS)|(?P<PNM>P[1-7]\s[\s\d\#])"
    rb"|(?P<SVG>(?:\xef\xbb\xbf)?\s{0,99}<(?:[?!][^\0]{0,900}?<)?svg[\s>])",
    re.DOTALL,
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}

_TRANSPOSE = {  # EXIF 2.32, tag 0x0112: how to turn what is stored into what was seen
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may be: `max_pixels` of one frame, `formats` out of `FORMATS`."""

    max_pixels: int = 50_000_000
    formats: tuple[str, ...] = FORMATS


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True)
class Picture:
    """An upright RGB image, fully in memory, perhaps smaller than what was sent.

    `info` tells the size that was sent. `extent` (left, top, right, bottom; pixels of `image`) is where in `image` the whole
    picture lies: its rows and columns from 0 to the original size, spread evenly.
    """

    image: Image.Image
    info: ImageInfo
    extent: jpeg.Extent


def decode(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[Image.Image, ImageInfo]:
    """Decode the first frame of an encoded image to an upright RGB image, fully in memory.

    Anything after the end of the picture is ignored, and so is an EXIF block that cannot be read.

    Raises:
        ImageUndecodable: empty, not an image, damaged or cut short.
        ImageUnsupported: an image of a format that is not allowed, or that this installation cannot read.
        ImageTooLarge: more pixels than allowed; nothing was decoded.
    """
    picture = decode_reduced(data, limits, lambda width, height: (width, height))
    return picture.image, picture.info


def decode_reduced(data: bytes, limits: ImageLimits, least: jpeg.Least) -> Picture:
    """As `decode`, but a JPEG may come at a half, a quarter or an eighth of its size, rounded up.

    `least` gets the width and height of the upright picture and tells the least width and height it may be decoded at. The
    limits judge the size in the header, and what `decode` refuses is refused here.

    Raises:
        ImageError: as `decode`.
    """
    name = _recognise(data)
    _check_format(name, limits)
    _prepare_pillow(limits)
    try:
        _check_pixels(_canvas(name, data), limits.max_pixels)
        image = _open(name, data)
        run_length = name == "BMP" and image.info.get("compression") in (1, 2)
        _check_pixels(image.size, min(limits.max_pixels, MAX_RLE_PIXELS) if run_length else limits.max_pixels)
        stored, n = image.size, 1
        if name == "JPEG":
            _check_scans(image, data)
            n = jpeg.reduce(image, data, _orientation(image), least)
        image.load()
        orientation = _orientation(image)  # a PNG may tell it behind the pixels
        rgb = _upright(_to_rgb(image, data), orientation)
    except ImageError:
        raise
    except Exception as error:  # on damaged files Pillow raises every type there is, from struct.error to MemoryError
        raise ImageUndecodable(f"the {name} image is damaged or cut short") from error
    if n == 1:
        return Picture(rgb, ImageInfo(rgb.width, rgb.height, name), (0.0, 0.0, float(rgb.width), float(rgb.height)))
    width, height = jpeg.upright(stored, orientation)
    return Picture(rgb, ImageInfo(width, height, name), jpeg.extent(stored, n, orientation))


def readable(name: str) -> bool:
    """Whether this installation can read the format: AVIF and WebP hang on Pillow's build, HEIC on the extra `heif`."""
    if name == "HEIC":
        return importlib.util.find_spec("pillow_heif") is not None
    if name in ("AVIF", "WEBP"):
        return bool(features.check(name.lower()))
    return name in FORMATS


def _recognise(data: bytes) -> str:
    if not data:
        raise ImageUndecodable("the image is empty: 0 bytes")
    head = data[:1024]
    if head[4:8] == b"ftyp":  # ISO base media: the brands tell AVIF from HEIC, the major one alone does not
        end = min(int.from_bytes(head[:4]), len(head))
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, end, 4))}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        if brands & _HEIC_BRANDS:
            return "HEIC"
    match = _MAGIC.match(head)
    if match is None or match.lastgroup is None:
        raise ImageUndecodable("the data is not an image in any known format")
    return match.lastgroup.replace("_", " ")


def _check_format(name: str, limits: ImageLimits) -> None:
    if name in limits.formats and readable(name):
        return
    given = name
    if name == "HEIC" and name in limits.formats:
        given = "HEIC (readable once the extra is installed: pip install 'sknet-serve[heif]')"
    raise ImageUnsupported(given, tuple(f for f in limits.formats if readable(f)))


def _prepare_pillow(limits: ImageLimits) -> None:
    """Set the two process-wide things that Pillow has no argument for; both only ever move one way, so threads may race.

    Its own pixel limit must not lie below ours. Its warnings about odd metadata quote the file: they say nothing that a
    server could act on, and each new text would stay in the interpreter's registry of warnings for good.
    """
    if Image.MAX_IMAGE_PIXELS is not None and limits.max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limits.max_pixels
    if ("ignore", None, Warning, re.compile(r"PIL\."), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", category=Warning, module=r"PIL\.")


def _canvas(name: str, data: bytes) -> tuple[int, int]:
    """Width and height in the header, for the two formats whose Pillow class judges or allocates before it tells; else (0, 0)."""
    if name == "GIF":
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if name == "WEBP" and data[12:16] == b"VP8X":  # extended: 24 bits each, minus one
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if name == "WEBP" and data[12:16] == b"VP8L":  # lossless: 14 bits each, minus one, behind a signature byte
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if name == "WEBP" and data[12:16] == b"VP8 ":  # lossy: 14 bits each below 2 bits of scale, RFC 6386 section 9.1
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return 0, 0


def _check_pixels(size: tuple[int, int], limit: int) -> None:
    if size[0] * size[1] > limit:
        raise ImageTooLarge(*size, limit)


def _open(name: str, data: bytes) -> ImageFile.ImageFile:
    module_name, class_name = _CLASSES[name]
    module: Any = importlib.import_module(module_name)
    if name == "AVIF" and not module.DEFAULT_MAX_THREADS:
        # Else every decode starts one thread per core of the host; images, not tiles, are what a server runs side by side.
        module.DEFAULT_MAX_THREADS = 1
    if name == "TIFF":
        _check_tiles(data)
    image: ImageFile.ImageFile = getattr(module, class_name)(_JpegSource(data) if name == "JPEG" else _Source(data))
    if name == "JPEG":
        image.decodermaxblock = len(data)  # all in one piece, not 64 KiB at a time: a little less work, and one turn of the lock
    return image


class _Source(io.BytesIO):
    """The encoded bytes, readable only so many times."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise ImageUndecodable(f"the image is cut into too many small pieces; at most {MAX_READS} are read")
        return super().read(size)


class _JpegSource(_Source):
    """The same, on guard against EXIF data cut into countless segments; each arrives by a read of its own."""

    exif_segments = 0

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self.exif_segments += piece.startswith(b"Exif\0\0")
        if self.exif_segments > MAX_EXIF_SEGMENTS:
            raise ImageUndecodable("the JPEG image is damaged: it repeats its EXIF data")
        return piece


def _check_tiles(data: bytes) -> None:
    """Count the strips or tiles in the first directory of a TIFF, before Pillow makes an object for each."""
    order, big = "<" if data[:1] == b"I" else ">", 43 in data[2:4]  # 43: BigTIFF, with 64-bit counts and offsets
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    at, width, layout = (at + 8, 20, "HHQ") if big else (at + 2, 12, "HHI")
    for i in range(min(entries, 65_535)):
        tag, _, count = struct.unpack_from(order + layout, data, at + i * width)
        if tag in (273, 279, 324, 325) and count > MAX_TIFF_TILES:  # offsets and byte counts of strips, and of tiles
            raise ImageUndecodable(f"the TIFF image has {count} strips or tiles; at most {MAX_TIFF_TILES} are read")


def _check_scans(image: Any, data: bytes) -> None:
    """Bound the work of a JPEG whose picture comes in several scans."""
    # Pillow has stopped behind the first scan's header, whose component count stands before 2 bytes each and 3 more. Where
    # all components are in one sequential scan, later marks (the video of a motion photograph) are not looked at.
    components = data[image.fp.tell() - 4 - 2 * image.layers]
    if components == image.layers and not image.info.get("progressive"):
        return
    scans = data.count(b"\xff\xda")
    if scans * image.width * image.height > MAX_SCANNED_PIXELS:
        raise ImageUndecodable(f"the JPEG image has {scans} scans over {image.width * image.height} pixels: too much work")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - the picture is good; what a broken EXIF block raises depends on where it is broken
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    # As ImageOps.exif_transpose, without rewriting the EXIF block, which fails on blocks that could be read.
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image, data: bytes) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.format == "PNG":
        _rescale_colour_key(image, depth=data[24])
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba)
    return white


def _rescale_colour_key(image: Image.Image, depth: int) -> None:
    """Bring a PNG's transparent colour from the file's sample depth to the eight bits of the pixels; Pillow leaves it."""
    key = image.info.get("transparency")
    if image.mode not in ("L", "RGB") or key is None:
        return
    samples = [v >> 8 if depth == 16 else (v & 255) * 255 // ((1 << depth) - 1) for v in np.atleast_1d(key).tolist()]
    image.info["transparency"] = tuple(samples) if image.mode == "RGB" else samples[0]


def _eight_bits(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Gray samples of more than eight bits -> (H, W) uint8, white where a PNG's transparent gray is.

    16 bits lose their low byte, as Pillow does with every other 16-bit mode: a picture gives the same pixels whether it is
    stored as gray, gray with alpha or RGB. 32-bit integers and floats declare no white: taken is the first of 1 (floats),
    255 and 65535 that no sample exceeds; failing that, or below zero, the range found is stretched to 0..255.
    """
    samples = np.asarray(image)
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (16,))[0]  # 12 in some TIFFs, unscaled
        gray = (samples >> (bits - 8)).astype(np.uint8)
        key = image.info.get("transparency")
        return gray if key is None else np.where(samples == key, np.uint8(255), gray)
    samples = np.nan_to_num(samples.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(samples.min()), float(samples.max())
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    white = next((w for w in whites if low >= 0 and high <= w), None)
    if white:
        black, span = 0.0, white
    else:  # halved, as 32 bits may be too few for the span from end to end; and what is nearer than this is one colour
        samples *= 0.5
        black, span = low / 2, max(high - low, 1e-30) / 2
    return np.asarray(np.clip((samples - black) * (255.0 / span) + 0.5, 0, 255), dtype=np.uint8)
