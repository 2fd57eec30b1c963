"""A photograph lies the way the service saw it, whatever says how it is turned, and no map lies over one that does not."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, expect

from tests import images
from tests.browser.explanations import answer_with, explanation
from tests.browser.visit import Visit, corners

pytestmark = pytest.mark.browser

UPRIGHT = [images.RED, images.GREEN, images.BLUE, images.WHITE]
SIZE = (480, 320)
# Colours in the middle of the four quarters, in reading order, each component to the nearest of 0, 128 and 255.
QUARTERS = """async (data) => {
  const { upright } = await import("/static/upright.js");
  const file = new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], "a");
  const bitmap = await createImageBitmap(await upright(file));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const near = (value) => [0, 128, 255].reduce((a, b) => Math.abs(a - value) < Math.abs(b - value) ? a : b);
  const at = (x, y) => [...context.getImageData(x * bitmap.width, y * bitmap.height, 1, 1).data].slice(0, 3).map(near);
  return [[bitmap.width, bitmap.height], at(.25, .25), at(.75, .25), at(.25, .75), at(.75, .75)];
}"""


def by_xmp(orientation: int, name: str) -> bytes:
    """A picture stored turned, of which XMP alone says so."""
    with_exif = images.oriented(images.quadrants(SIZE), orientation, "PNG")
    said = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'
    with Image.open(io.BytesIO(with_exif)) as image:
        stored = Image.frombytes("RGB", image.size, image.tobytes())
    return images.encode(stored, name, xmp=said.encode(), quality=95)


def test_a_turned_webp_and_xmp_lie_as_the_service_saw_them(visit: Visit) -> None:
    made = {
        "exif.webp": images.oriented(images.quadrants(SIZE), 6, "WEBP", quality=95),
        "xmp.jpg": by_xmp(3, "JPEG"),
    }
    for name, data in made.items():
        visit.result({"name": name, "mimeType": "", "buffer": data})
        expect(visit.page.locator("#facts")).to_contain_text("480 \u00d7 320")
        expect(visit.page.locator("#preview")).to_have_js_property("naturalWidth", 480)
        assert corners(visit.page.locator("#preview")) == UPRIGHT, name
    visit.why()
    visit.page.get_by_label("Opacity of the map").fill("0")
    expect(visit.page.locator(".mapped img")).to_have_js_property("naturalWidth", 480)
    assert corners(visit.page.locator(".mapped img")) == UPRIGHT
    visit.page.get_by_role("button", name="All images").click()
    expect(visit.page.locator(".tile img")).to_have_count(2)
    for tile in visit.page.locator(".tile img").all():
        assert corners(tile) == UPRIGHT


def test_every_orientation_is_turned_once(visit: Visit) -> None:
    for orientation in range(1, 9):
        files = [images.oriented(images.quadrants(SIZE), orientation, kind, quality=95) for kind in ("WEBP", "JPEG", "PNG")]
        files += [by_xmp(orientation, kind) for kind in ("WEBP", "JPEG")]
        for data in files:
            found = visit.page.evaluate(QUARTERS, base64.b64encode(data).decode())
            assert [tuple(each) for each in found] == [SIZE, *UPRIGHT], (orientation, data[:12])


def test_what_is_cut_off_or_no_image_is_left_as_it_is(visit: Visit) -> None:
    asked = """async (data) => {
      const { unheeded } = await import("/static/upright.js");
      const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
      return Array.from({ length: bytes.length }, (_, i) => unheeded(bytes.slice(0, i))).every((turn) => turn >= 1 && turn <= 8);
    }"""
    for kind in ("WEBP", "JPEG", "PNG"):
        data = images.oriented(images.quadrants((24, 16)), 6, kind)
        assert visit.page.evaluate(asked, base64.b64encode(data).decode())


def test_no_map_over_a_picture_of_other_proportions(visit: Visit) -> None:
    answer_with(visit, explanation())  # of 400 x 300 pixels
    tall: FilePayload = {"name": "tall.png", "mimeType": "image/png", "buffer": images.encode(images.solid((300, 400)))}
    visit.result(tall)
    visit.why()
    expect(visit.page.locator(".where > .note").first).to_contain_text("otherwise than the service saw it")
    expect(visit.page.locator(".mapped img")).to_be_hidden()
