"""Encoded bytes -> RGB pixels, for bytes that nobody vouches for.

The format is decided by content, never by a name or a media type. Formats, sides, pixels, frames and metadata are checked
before any pixel is decoded; of several frames only the first is decoded. EXIF orientation is applied, transparency is
composed on white, deeper samples become eight bits. ICC profiles are ignored: the networks were trained on pixels read so.
Who needs less than the whole size may say so: a JPEG is then decoded smaller. Who does not trust the rarer decoders may have
them work elsewhere.

Pillow's format classes are called directly rather than through `Image.open`, which warns about large images through a
process-wide filter before their size can be seen, and takes the photographs of phones (MPO) for something else than JPEG.

Everything may be called from many threads at once. This file knows nothing of networks, input sizes or HTTP.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from PIL import ExifTags, Image, ImageFile, features

from model import frames, jpeg, metadata
from model.containers import tiff_entries, tiff_layout
from model.errors import ImageOverLimit, ImageTooLarge, ImageUndecodable, ImageUnsupported, ModelError
from model.rgb import to_rgb, upright
from model.source import JpegSource, Source
from model.types import ImageInfo

FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIC")
# What browsers have decoded for strangers for decades. The decoders of the others are best kept in a process of their own.
TRUSTED: tuple[str, ...] = ("JPEG", "PNG", "WEBP")

# Pillow decodes run-length BMP by a loop in Python, 0.1 us a pixel and 0.5 us a run, with the interpreter held.
MAX_RLE_PIXELS = 1_000_000
# One tile of a TIFF costs 5 us whatever its size: 50 megapixels in tiles of 16x16 have 195,000.
MAX_TIFF_TILES = 200_000
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


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may be: `max_pixels` of one frame, `formats` out of `FORMATS`, `max_side` in pixels, `max_frames` in all,
    `max_metadata_bytes` of EXIF, of an ICC profile, and of a PNG's texts, each unpacked."""

    max_pixels: int = 50_000_000
    formats: tuple[str, ...] = FORMATS
    max_side: int = 65_535
    max_frames: int = 1000
    max_metadata_bytes: int = 4_000_000


DEFAULT_LIMITS = ImageLimits()
_PILLOW = re.compile(r"PIL\.")


# (format, the encoded image) -> an upright RGB image, decoded somewhere else; raises as `decode` does.
Apart: TypeAlias = Callable[[str, bytes], Image.Image]


@dataclass(frozen=True, slots=True)
class Picture:
    """An upright RGB image, fully in memory, perhaps smaller than what was sent.

    `info` tells the size that was sent. `extent` (left, top, right, bottom; pixels of `image`) is where in `image` the whole
    picture lies: its rows and columns from 0 to the original size, spread evenly.
    """

    image: Image.Image
    info: ImageInfo
    extent: jpeg.Extent


def decode(data: bytes, limits: ImageLimits = DEFAULT_LIMITS, apart: Apart | None = None) -> tuple[Image.Image, ImageInfo]:
    """Decode the first frame of an encoded image to an upright RGB image, fully in memory.

    Anything after the end of the picture is ignored, and so is an EXIF block that cannot be read. With `apart`, that decodes
    what is not `TRUSTED`, and whatever else it raises of `ModelError` is raised here.

    Raises:
        ImageUndecodable: empty, not an image, damaged or cut short.
        ImageUnsupported: an image of a format that is not allowed, or that this installation cannot read.
        ImageTooLarge: more pixels than allowed; nothing was decoded.
        ImageOverLimit: another limit; nothing was decoded.
    """
    picture = decode_reduced(data, limits, lambda width, height: (width, height), apart)
    return picture.image, picture.info


def decode_reduced(data: bytes, limits: ImageLimits, least: jpeg.Least, apart: Apart | None = None) -> Picture:
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
        _check_file(name, data, limits)
        if apart is not None and name not in TRUSTED:
            return _whole(apart(name, data), name)
        image = _open(name, data, limits)
        _check_opened(name, image, limits)
        stored, n = image.size, 1
        if name == "JPEG":
            _check_scans(image, data)
            n = jpeg.reduce(image, data, _orientation(image), least)
        image.load()
        orientation = _orientation(image)  # a PNG may tell it behind the pixels
        rgb = upright(to_rgb(image, data), orientation)
    except ModelError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # Pillow's limit is never below ours
        raise ImageUndecodable(f"the {name} image is larger inside than its header says") from error
    except Exception as error:  # on damaged files Pillow raises every type there is, from struct.error to MemoryError
        raise ImageUndecodable(f"the {name} image is damaged or cut short") from error
    if n == 1:
        return _whole(rgb, name)
    width, height = jpeg.upright(stored, orientation)
    return Picture(rgb, ImageInfo(width, height, name), jpeg.extent(stored, n, orientation))


def _whole(rgb: Image.Image, name: str) -> Picture:
    return Picture(rgb, ImageInfo(rgb.width, rgb.height, name), (0.0, 0.0, float(rgb.width), float(rgb.height)))


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
    if ("error", None, Image.DecompressionBombWarning, _PILLOW, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", category=Warning, module=_PILLOW.pattern)
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning, module=_PILLOW.pattern)


def _check_file(name: str, data: bytes, limits: ImageLimits) -> None:
    """What the file alone tells, before any decoder sees it."""
    _check_size(_canvas(name, data), limits.max_pixels, limits)
    _check_frames(frames.count(name, data, limits.max_frames), limits)
    metadata.check(name, data, limits.max_metadata_bytes)


def _check_opened(name: str, image: Any, limits: ImageLimits) -> None:
    """What Pillow tells once it has read the header."""
    run_length = name == "BMP" and image.info.get("compression") in (1, 2)
    _check_size(image.size, min(limits.max_pixels, MAX_RLE_PIXELS) if run_length else limits.max_pixels, limits)
    if name in ("JPEG", "AVIF", "HEIC"):  # the others' metadata was measured in the file
        for key, kind in (("exif", metadata.EXIF), ("icc_profile", metadata.ICC)):
            metadata.hold(kind, len(image.info.get(key) or b""), limits.max_metadata_bytes)
        if name != "JPEG":  # pictures side by side, beside sequences
            _check_frames(image.n_frames, limits)


def _check_frames(count: int, limits: ImageLimits) -> None:
    if count > limits.max_frames:
        text = f"the image has at least {count} frames; at most {limits.max_frames} are allowed"
        raise ImageOverLimit(text, limits.max_frames, count)


def _canvas(name: str, data: bytes) -> tuple[int, int]:
    """Width and height in the header, for the two formats whose Pillow class judges or allocates before it tells; else (0, 0)."""
    if name == "GIF":
        return frames.gif_canvas(data)
    if name == "WEBP" and data[12:16] == b"VP8X":  # extended: 24 bits each, minus one
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if name == "WEBP" and data[12:16] == b"VP8L":  # lossless: 14 bits each, minus one, behind a signature byte
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if name == "WEBP" and data[12:16] == b"VP8 ":  # lossy: 14 bits each below 2 bits of scale, RFC 6386 section 9.1
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return 0, 0


def _check_size(size: tuple[int, int], max_pixels: int, limits: ImageLimits) -> None:
    if size[0] * size[1] > max_pixels:
        raise ImageTooLarge(*size, max_pixels)
    if (side := max(size)) > limits.max_side:
        text = f"the longer side of the image has {side} pixels; at most {limits.max_side} are allowed"
        raise ImageOverLimit(text, limits.max_side, side)


def _open(name: str, data: bytes, limits: ImageLimits) -> ImageFile.ImageFile:
    module, kind = _class(name)
    if name == "TIFF":
        _check_tiles(data)
    elif name == "PNG" and limits.max_metadata_bytes > module.MAX_TEXT_CHUNK:  # for all, and upwards only: see `_prepare_pillow`
        module.MAX_TEXT_CHUNK = limits.max_metadata_bytes
    image: ImageFile.ImageFile = kind(JpegSource(data) if name == "JPEG" else Source(data))
    if name == "JPEG":
        image.decodermaxblock = len(data)  # all in one piece, not 64 KiB at a time: a little less work, and one turn of the lock
    return image


@cache
def _class(name: str) -> tuple[Any, Any]:
    """(Pillow's module for a format, its class of image files)."""
    module: Any = importlib.import_module(_CLASSES[name][0])
    kind = getattr(module, _CLASSES[name][1])
    # Else every decode starts one thread per core of the host; images, not tiles, are what a server runs side by side.
    if name == "AVIF" and not module.DEFAULT_MAX_THREADS:
        module.DEFAULT_MAX_THREADS = 1
    elif name == "HEIC":
        module.options.DECODE_THREADS = 1
    elif name == "JPEG":  # it would take the EXIF block apart, to learn the resolution
        kind = type(kind.__name__, (kind,), {"getexif": lambda image: Image.Exif()})
    return module, kind


def _check_tiles(data: bytes) -> None:
    """Count the strips or tiles in the first directory of a TIFF, before Pillow makes an object for each."""
    for tag, _, count in tiff_entries(data, tiff_layout(data)):
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
        if image.format not in TRUSTED:
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
        exif = image.info.get("exif")
        if exif is None and (text := image.info.get("Raw profile type exif")):  # as ImageMagick writes it into a PNG
            exif = bytes.fromhex("".join(text.split("\n")[3:]))
        return metadata.orientation(exif or b"", image.info.get("xmp") or b"")
    except Exception:  # noqa: BLE001 - the picture is good; what a broken EXIF block raises depends on where it is broken
        return 1
