"""The map lies where it says, in colours that say what it holds, and costs no second picture."""

from __future__ import annotations

import io
import math
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from model import overlay as module
from model.overlay import colours, overlay, overlay_png, paint
from model.types import Box, ClassActivation
from tests import images as make
from tests.model.explanations import activation

GRAY = (119, 119, 119)


def painted(size: tuple[int, int], asked: ClassActivation, colour: tuple[int, int, int] = GRAY, **options: float) -> np.ndarray:
    return np.asarray(overlay(make.solid(size, colour), asked, **options)).astype(int)


def expected(x: int, y: int, asked: ClassActivation, opacity: float = module.OPACITY) -> np.ndarray:
    """The colour of a pixel of a gray picture, from the definition: bilinear between the cells' centres."""
    rows, columns, box = len(asked.values), len(asked.values[0]), asked.box
    u = min(max((x + 0.5 - box.left) / (box.right - box.left) * columns - 0.5, 0), columns - 1)
    v = min(max((y + 0.5 - box.top) / (box.bottom - box.top) * rows - 0.5, 0), rows - 1)
    value = 0.0
    for i in (math.floor(v), math.floor(v) + 1):
        for j in (math.floor(u), math.floor(u) + 1):
            weight = max(0, 1 - abs(v - i)) * max(0, 1 - abs(u - j))
            value += weight * asked.values[min(i, rows - 1)][min(j, columns - 1)]
    part = value / max(abs(each) for row in asked.values for each in row)
    weight = opacity * abs(part)
    return np.asarray((1 - weight) * np.array(GRAY) + weight * colours(np.array([part]))[0])


@pytest.mark.parametrize(
    "box", [Box(0, 0, 61, 43), Box(9.3, 0, 52.1, 43), Box(0, 5.5, 61, 37.25), Box(-7.5, -3, 70, 50), Box(20, 20, 21, 21)]
)
@pytest.mark.parametrize("values", [((1, -2), (3, 2)), ((5, 1, 0.5, -4, 2), (0, 0, 1, 1, 2), (7, -7, 3, 1, 0)), ((-1.5,),)])
def test_every_pixel_is_where_a_direct_computation_puts_it(box: Box, values: tuple[tuple[float, ...], ...]) -> None:
    asked = activation(values, box)
    found = painted((61, 43), asked)
    for y in range(43):
        for x in range(61):
            inside = box.left <= x + 0.5 < box.right and box.top <= y + 0.5 < box.bottom
            wanted = expected(x, y, asked) if inside else np.array(GRAY)
            assert np.abs(found[y, x] - wanted).max() <= 2, (x, y)  # 255 steps of evidence, and a rounding


def test_at_a_cells_centre_stands_its_own_value() -> None:
    asked = activation(((0, 0, 0), (0, 4, 0), (0, 0, 0)), Box(0, 0, 45, 45))
    found = painted((45, 45), asked, opacity=1.0)
    assert found[22, 22].tolist() == [224, 80, 0]  # the full colour, in the middle
    assert (found[:8, :8] == GRAY).all()
    assert (found[7, 22] == GRAY).all()


def test_evidence_against_is_another_colour_than_evidence_for() -> None:
    asked = activation(((2.0,), (-2.0,)), Box(0, 0, 10, 40))
    found = painted((10, 40), asked)
    assert found[2, 5, 0] > found[2, 5, 2] + 60  # orange
    assert found[37, 5, 2] > found[37, 5, 0] + 60  # blue


def test_colours_differ_to_the_colour_blind_and_in_gray() -> None:
    parts = np.array([-1, -0.5, 0, 0.5, 1.0])
    table = colours(parts)
    # Vienot, Brettel and Mollon (1999): what a deuteranope sees, in linear light.
    linear = (table / 255) ** 2.2
    seen = np.stack([linear @ [0.29275, 0.70725, 0], linear @ [0.29275, 0.70725, 0], linear @ [-0.02234, 0.02234, 1]], axis=1)
    for i, j in ((0, 4), (1, 3), (0, 2), (2, 4)):
        assert np.abs(seen[i] - seen[j]).max() > 0.15, (parts[i], parts[j])
    lightness = linear @ [0.2126, 0.7152, 0.0722]
    assert lightness[2] > lightness[1] > lightness[0]
    assert lightness[2] > lightness[3] > lightness[4]


def test_outside_the_map_the_photograph_keeps_its_colours_and_under_it_gives_them_up() -> None:
    photograph = make.photograph()
    asked = activation(((0.0, 1.0),), Box(100, 50, 300, 200))
    found = np.asarray(overlay(photograph, asked)).astype(int)
    whole = np.asarray(photograph).astype(int)
    changed = np.zeros(whole.shape[:2], bool)
    changed[50:200, 100:300] = True
    assert (found[~changed] == whole[~changed]).all()
    no_evidence = found[50:200, 100:150]  # left of the first centre
    assert (no_evidence == no_evidence[..., :1]).all()
    assert (no_evidence[..., 0] == np.asarray(photograph.convert("L"))[50:200, 100:150]).all()


def test_a_map_of_nothing_changes_nothing() -> None:
    photograph = make.photograph()
    assert overlay(photograph, activation(((0.0, 0.0),))).tobytes() == photograph.tobytes()
    assert overlay(photograph, activation(((1.0,),), Box(-9, -9, -1, -1))).tobytes() == photograph.tobytes()


def test_stripes_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    photograph, asked = make.photograph(), activation(((1, -2, 3), (3, 2, 1)), Box(20.5, 3, 400, 290.5))
    whole = overlay(photograph, asked)
    monkeypatch.setattr(module, "_STRIPE_PIXELS", 997)
    assert overlay(photograph, asked).tobytes() == whole.tobytes()


def test_a_picture_of_another_size_is_painted_at_the_same_place() -> None:
    asked = activation(((1.0,),), Box(40, 20, 80, 60))
    half = make.solid((60, 40))
    paint(half, asked, scale=(0.5, 0.5))
    changed = (np.asarray(half) != (255, 0, 0)).any(axis=2)
    assert (np.argwhere(changed).min(0).tolist(), np.argwhere(changed).max(0).tolist()) == ([10, 20], [29, 39])


@pytest.mark.parametrize(
    ("original", "size", "changed"),
    [
        ((30, 20_000), (2, 1000), (0, 499, 1, 500)),
        ((1, 65_535), (1, 1000), (0, 500, 0, 500)),
        ((5000, 3), (1000, 1), (500, 0, 500, 0)),
    ],
)
def test_a_long_thin_picture_has_its_map_in_the_middle(
    original: tuple[int, int], size: tuple[int, int], changed: tuple[int, int, int, int]
) -> None:
    (width, height), side = original, min(original)
    box = Box((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    image = make.solid(size)
    paint(image, activation(((1.0,),), box), scale=(size[0] / width, size[1] / height))
    places = np.argwhere((np.asarray(image) != (255, 0, 0)).any(axis=2))
    assert (*places.min(0)[::-1].tolist(), *places.max(0)[::-1].tolist()) == changed


def test_the_png_is_the_picture_in_its_own_size() -> None:
    photograph, asked = make.photograph(), activation(((1, -2), (3, 2)), Box(75, 0, 376, 300))
    wanted = overlay(photograph, asked)
    data = overlay_png(photograph, asked)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (451, 300), "RGB")
        assert image.tobytes() == wanted.tobytes()


def test_a_large_picture_costs_little_beside_itself() -> None:
    image = make.solid((6000, 4000), GRAY)
    asked = activation(((1, -2), (3, 2)), Box(1000, 0, 5000, 4000))
    tracemalloc.start()  # numpy's memory; Pillow's own is a stripe and its crop
    try:
        paint(image, asked)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30_000_000  # the picture has 72 million bytes
