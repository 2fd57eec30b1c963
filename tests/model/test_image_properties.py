"""Whatever the mode, format, shape and metadata, whatever was done to the file: a picture of the right size, or an `ImageError`.

Decoded as a model does it: what is not trusted goes through a guard.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from model.errors import ImageError
from model.guard import Guard
from model.image import FORMATS, ImageLimits, decode, decode_reduced
from model.preprocess import least_size, quick_pixels
from model.types import ImageInfo, PreprocessSpec
from tests.strategies import damaged_images, disguised_bytes, dressed_images, encoded_images, extreme_images, sample

LIMITS = ImageLimits(max_pixels=1_000_000)
SPEC = PreprocessSpec(size=(32, 32))
bounded = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    made = Guard(LIMITS, seconds=60)
    yield made
    made.close()


@given(given_image=encoded_images())
@bounded(max_examples=60)
def test_every_mode_comes_in_its_size(guard: Guard, given_image: tuple[str, Image.Image, bytes]) -> None:
    name, original, data = given_image
    image, info = decode(data, LIMITS, guard.decode)
    assert (image.mode, image.size) == ("RGB", original.size)
    assert info == ImageInfo(*original.size, name)


@given(extreme=extreme_images())
@bounded(max_examples=60)
def test_extreme_shapes_come_in_their_size_and_are_prepared(guard: Guard, extreme: tuple[str, tuple[int, int], bytes]) -> None:
    name, size, data = extreme
    picture = decode_reduced(data, LIMITS, partial(least_size, spec=SPEC), guard.decode)
    assert picture.image.mode == "RGB"
    assert picture.info == ImageInfo(*size, name)
    assert name == "JPEG" or picture.image.size == size  # a JPEG may come smaller
    assert quick_pixels(picture.image, SPEC, size, picture.extent).shape == (32, 32, 3)


@given(dressed=dressed_images())
@bounded(max_examples=60)
def test_metadata_turns_the_picture_and_does_nothing_else(guard: Guard, dressed: tuple[str, int, bytes]) -> None:
    name, _, data = dressed
    image, info = decode(data, LIMITS, guard.decode)
    assert info == ImageInfo(48, 32, name)
    assert abs(image.getpixel((20, 20))[2] - 200) < 12  # type: ignore[index]  # RGB: three numbers


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@bounded(max_examples=25)
def test_a_mutated_file_is_a_picture_or_an_image_error(guard: Guard, name: str, data: st.DataObject) -> None:
    assert_picture_or_image_error(data.draw(damaged_images((name,))), guard)


@given(first=st.sampled_from(FORMATS), second=st.sampled_from(FORMATS), at=st.integers(0, 200), frm=st.integers(0, 200))
@bounded(max_examples=60)
def test_two_files_spliced_are_a_picture_or_an_image_error(guard: Guard, first: str, second: str, at: int, frm: int) -> None:
    assert_picture_or_image_error(sample(first)[:at] + sample(second)[frm:], guard)


@given(data=disguised_bytes())
@bounded(max_examples=60)
def test_arbitrary_bytes_are_a_picture_or_an_image_error(guard: Guard, data: bytes) -> None:
    assert_picture_or_image_error(data, guard)


def assert_picture_or_image_error(data: bytes, guard: Guard) -> None:
    try:
        picture = decode_reduced(data, LIMITS, partial(least_size, spec=SPEC), guard.decode)
    except ImageError as error:
        assert str(error).isprintable()  # noqa: PT017 - either outcome is fine, this text is for people
        return
    size = (picture.info.width, picture.info.height)
    assert picture.image.mode == "RGB"
    assert size[0] * size[1] <= LIMITS.max_pixels
    assert quick_pixels(picture.image, SPEC, size, picture.extent).shape == (32, 32, 3)
