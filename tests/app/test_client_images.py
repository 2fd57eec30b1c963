"""What callers have of an image, and that nothing of it is lost on the way."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.client_errors import UnusableImage
from app.client_images import encoded
from model.image import decode
from tests.images import encode, oriented, photograph, quadrants, solid

MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16B"]
SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20))


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return image


def refused(image: Any) -> str:
    with pytest.raises(UnusableImage) as caught:
        encoded(image)
    assert caught.value.__context__ is None  # it would hold the image, and what was open
    return str(caught.value)


def test_bytes_and_files_go_as_they_are(tmp_path: Path) -> None:
    data = b"not looked at"
    path = tmp_path / "a"
    path.write_bytes(data)
    for image in (data, bytearray(data), memoryview(data), path, str(path), io.BytesIO(data)):
        assert encoded(image) == data
    with path.open("rb") as file:
        file.seek(4)
        assert encoded(file) == data[4:]


@given(SHAPES, st.booleans(), st.randoms(use_true_random=False))
def test_an_array_comes_back_as_it_was(shape: tuple[int, int], gray: bool, rng: Any) -> None:
    full = shape if gray else (*shape, 3)
    array = np.frombuffer(rng.randbytes(int(np.prod(full))), np.uint8).reshape(full)
    for each in (array, array[::-1, ::-1], np.asfortranarray(array)):
        assert np.array_equal(np.asarray(opened(encoded(each))), each)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 4, 3), np.float32), "4x4x3 of float32"),
        (np.zeros((4, 4, 3), np.uint16), "4x4x3 of uint16"),
        (np.zeros((4, 4), bool), "4x4 of bool"),
        (np.zeros((3, 4, 4), np.uint8), "3x4x4 of uint8"),
        (np.zeros((4, 4, 4), np.uint8), "4x4x4 of uint8"),
        (np.zeros((1, 4, 4, 3), np.uint8), "1x4x4x3 of uint8"),
        (np.zeros(4, np.uint8), "4 of uint8"),
        (np.zeros((), np.uint8), "() of uint8"),
        (np.zeros((0, 4, 3), np.uint8), "0x4x3 of uint8"),
    ],
)
def test_other_arrays_are_refused_with_what_is_allowed(array: Any, said: str) -> None:
    text = refused(array)
    assert said in text
    assert "uint8 (0 to 255) of shape (height, width, 3)" in text


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_of_any_mode_is_sent(mode: str) -> None:
    picture = Image.new(mode, (6, 4))
    assert opened(encoded(picture)).size == (6, 4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_modes_of_a_png_lose_nothing(mode: str) -> None:
    picture = quadrants().convert("RGBA" if mode == "LA" else "RGB")
    picture = Image.fromarray(np.arange(96, dtype=np.uint16).reshape(8, 12) * 600) if mode == "I;16" else picture.convert(mode)
    sent = opened(encoded(picture))
    assert sent.mode == mode
    assert np.array_equal(np.asarray(sent), np.asarray(picture))
    assert sent.getpalette() == picture.getpalette()


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("F", "TIFF"), ("I", "TIFF")])
def test_other_modes_become_what_the_service_makes_of_such_a_file(mode: str, name: str) -> None:
    data = encode(photograph(size=(20, 16)).convert("L" if mode in "IF" else "RGB").convert(mode), name)
    assert np.array_equal(np.asarray(opened(encoded(Image.open(io.BytesIO(data))))), np.asarray(decode(data)[0]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
def test_a_picture_is_the_right_way_up_as_its_file_is(orientation: int, name: str) -> None:
    upright = quadrants()
    options = {"lossless": True} if name == "WEBP" else {}
    sent = opened(encoded(Image.open(io.BytesIO(oriented(upright, orientation, name, **options)))))
    assert np.array_equal(np.asarray(sent), np.asarray(upright))


def test_a_broken_exif_block_spoils_no_picture() -> None:
    picture = Image.open(io.BytesIO(encode(quadrants(), "JPEG", exif=b"Exif\0\0broken")))
    assert np.array_equal(np.asarray(opened(encoded(picture))), np.asarray(picture))


def test_transparency_stays() -> None:
    picture = solid(mode="RGBA", colour=(1, 2, 3, 0))
    assert opened(encoded(picture)).getpixel((0, 0)) == (1, 2, 3, 0)
    palette = solid().quantize(4)
    palette.info["transparency"] = 0
    assert opened(encoded(palette)).has_transparency_data


@pytest.mark.parametrize("image", [b"", bytearray(), io.BytesIO()])
def test_nothing_is_no_image(image: Any) -> None:
    assert refused(image) == "the image is empty"


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    assert refused(empty) == f"{empty} is empty"
    assert refused(tmp_path / "none.png") == f"{tmp_path / 'none.png'}: no such file or directory"
    assert refused(str(tmp_path)) == f"{tmp_path}: is a directory"
    assert "embedded null" in refused("a\0b")
    closed = empty.open("rb")
    closed.close()
    assert refused(closed) == f"{empty}: read of closed file"
    with empty.open() as text:
        assert refused(text) == f"{empty}: it gives text; open it with mode 'rb'"


def test_a_picture_that_cannot_be_read_to_its_end() -> None:
    cut = Image.open(io.BytesIO(encode(photograph(), "JPEG")[:5000]))
    assert "mode RGB and 451 x 300 pixels: image file is truncated" in refused(cut)
    assert "0 x 0 pixels" in refused(Image.new("RGB", (0, 0)))


@pytest.mark.parametrize("image", [None, 7, 1.5, ["a.jpg"], object(), {"url": "x"}])
def test_anything_else_is_no_image(image: Any) -> None:
    text = refused(image)
    assert f"an object of type {type(image).__name__} is no image" in text
    assert "a path, bytes, an open file, a Pillow image or a numpy array" in text


def test_a_file_needs_neither_pillow_nor_numpy() -> None:
    code = "import sys; from app.client_images import encoded; encoded(b'x'); print({'PIL', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=os.environ)
    assert done.stdout.strip() == "set()"
