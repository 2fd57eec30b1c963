"""What a caller has of an image -> the bytes that are sent. Files go as they are; pictures and arrays as PNG, losslessly.

It neither decodes nor checks what others encoded: the service does. Pillow and numpy are imported by whoever has such an object.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from app.client_errors import UnusableImage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


class Readable(Protocol):
    """An open file, or what can be read like one."""

    def read(self) -> bytes:
        """Everything from here to the end."""
        ...


ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | Image.Image | NDArray[np.uint8]"

_KEPT = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}  # modes that a PNG stores as they are
_FAST = 1  # zlib's level: a twelfth of the default's time for a tenth more bytes


def encoded(image: ImageLike) -> bytes:
    """The bytes to send.

    Raises:
        UnusableImage: what was given cannot be read, is empty, or is of a kind that cannot be sent.
    """
    data = _bytes_of(image)
    if not data:
        raise UnusableImage(f"{os.fspath(image) if isinstance(image, str | os.PathLike) else 'the image'} is empty")
    return data


def _bytes_of(image: Any) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return _file(image)
    if _is(image, "PIL.Image", "Image"):
        return _picture(image)
    if _is(image, "numpy", "ndarray"):
        return _array(image)
    if callable(getattr(image, "read", None)):
        return _read(image)
    raise UnusableImage(f"{_kind(image)} is no image: give a path, bytes, an open file, a Pillow image or a numpy array of uint8")


def _is(image: object, module: str, name: str) -> bool:
    """Whether it is of a class whose module need not be installed: where nobody imported that, there are no such objects."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(image, kind)


def _kind(image: object) -> str:
    return f"an object of type {type(image).__module__}.{type(image).__qualname__}".replace("builtins.", "")


def _file(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        reason = (getattr(error, "strerror", None) or str(error)).lower()
    raise UnusableImage(f"{os.fspath(path)}: {reason}")  # outside, so that it holds on to nothing of the other


def _read(file: Any) -> bytes:
    try:
        data = file.read()
    except (OSError, ValueError) as error:  # closed, or no text of its encoding
        data, reason = None, str(error)
    else:
        reason = "it gives text; open it with mode 'rb'" if isinstance(data, str) else "it gives no bytes"
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise UnusableImage(f"{getattr(file, 'name', None) or _kind(file)}: {reason}")


def _picture(image: Image.Image) -> bytes:
    """A Pillow image, turned as its EXIF orientation says: the same picture as the file that it came from.

    Modes that no PNG has become RGB by the rules that the service has for files of such a mode.
    """
    from model.rgb import to_rgb, upright

    try:
        image.load()  # first: a TIFF is turned by that already, and says so afterwards
        turned = upright(image, _orientation(image))
        if turned.mode == "La":  # Pillow knows no way from it to RGB
            turned = turned.convert("LA")
        if turned.mode not in _KEPT:
            turned = to_rgb(turned, b"")
        return _png(turned)
    except (OSError, ValueError, TypeError) as error:  # a file that is only now read, and is cut off; no pixels at all
        reason = str(error) or type(error).__name__
    raise UnusableImage(f"the Pillow image of mode {image.mode} and {image.width} x {image.height} pixels: {reason}")


def _orientation(image: Image.Image) -> int:
    from PIL import ExifTags

    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - the picture is good; what a broken EXIF block raises depends on where it is broken
        return 1


def _array(array: NDArray[Any]) -> bytes:
    shape = "x".join(map(str, array.shape))
    if array.dtype != "uint8" or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or array.size == 0:
        raise UnusableImage(
            f"the array has shape {shape or '()'} of {array.dtype}; send uint8 (0 to 255) of shape (height, width, 3) for RGB, "
            "or (height, width) for gray"
        )
    from PIL import Image

    return _png(Image.fromarray(array))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_FAST)
    return buffer.getvalue()
