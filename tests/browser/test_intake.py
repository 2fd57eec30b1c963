"""Images come in by every way there is, and are shown and ranked as the service ranks them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests import images
from tests.browser.conftest import NARROW, Visitor
from tests.browser.proxy import PREFIX, below_prefix
from tests.browser.visit import Visit, corners
from tests.e2e.server import Server

pytestmark = pytest.mark.browser

UPRIGHT = [images.RED, images.GREEN, images.BLUE, images.WHITE]
TRANSFER = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  return transfer;
}"""


def drop(visit: Visit, *paths: Path) -> None:
    """What the system does when somebody lets go of files over the page: they come with paths, and folders as folders."""
    box = visit.page.locator("#drop").bounding_box()
    assert box is not None
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        visit.devtools().send(
            "Input.dispatchDragEvent",
            {"type": kind, "x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "data": data},
        )


@pytest.mark.parametrize("name", ["chelsea", "astronaut", "coffee", "rocket"])
def test_a_photograph_is_ranked_as_the_service_ranks_it(
    visit: Visit, service: Server, photos: dict[str, Path], name: str
) -> None:
    with service.client() as client:
        answer = client.post("/classify", files={"file": photos[name].read_bytes()}).json()
    assert visit.result(photos[name]) == [found["label"] for found in answer["predictions"]]
    scores = visit.page.locator("#ranking .score").all_inner_texts()
    assert [float(score.removesuffix(" %").removeprefix("< ")) for score in scores] == pytest.approx(
        [100 * found["score"] for found in answer["predictions"]], abs=0.06
    )
    image = answer["image"]
    facts = visit.page.locator("#facts").inner_text()
    assert facts.endswith(f"{image['width']} \u00d7 {image['height']} pixels, JPEG")
    widths = visit.page.locator("#ranking .bar i").evaluate_all("(bars) => bars.map((bar) => parseFloat(bar.style.width))")
    assert widths == pytest.approx([100 * found["score"] for found in answer["predictions"]], abs=0.06)
    for phase in ("upload", "queue", "prepare", "inference", "total", "round"):
        assert visit.page.locator(f"[data-phase={phase}] dd").inner_text().endswith(" ms")


def test_a_file_is_dropped(visit: Visit, photos: dict[str, Path]) -> None:
    drop(visit, photos["chelsea"])
    visit.ranked()
    assert visit.page.locator("#detail-heading").inner_text() == "chelsea.jpg"
    assert visit.page.locator("#ranking .label").first.inner_text() == "cat"


def test_a_folder_is_dropped_and_what_is_no_image_is_left_out(visit: Visit, photos: dict[str, Path], tmp_path: Path) -> None:
    inner = tmp_path / "holiday" / "day 2"
    inner.mkdir(parents=True)
    (inner / "b10.jpg").write_bytes(photos["coffee"].read_bytes())
    (inner / "b9.jpg").write_bytes(photos["rocket"].read_bytes())
    (tmp_path / "holiday" / "a.jpg").write_bytes(photos["chelsea"].read_bytes())
    (tmp_path / "holiday" / "notes.txt").write_text("no image")
    drop(visit, tmp_path / "holiday")
    visit.counted("3 of 3 images done")
    names = visit.page.locator(".tile .name").all_inner_texts()
    assert names == ["holiday/a.jpg", "holiday/day 2/b9.jpg", "holiday/day 2/b10.jpg"]
    assert visit.page.locator("#left-out").inner_text() == "1 file left out: no images."


def test_a_folder_is_chosen(visit: Visit, photos: dict[str, Path]) -> None:
    visit.watch.allow("status of 422")
    visit.page.get_by_label("Choose a folder").set_input_files(photos["chelsea"].parent)
    visit.counted("6 of 7 images done, 1 failed")
    assert all("/" in name for name in visit.page.locator(".tile .name").all_inner_texts())


def test_an_image_is_pasted(visit: Visit, photos: dict[str, Path]) -> None:
    data = base64.b64encode(photos["coffee"].read_bytes()).decode()
    transfer = visit.page.evaluate_handle(TRANSFER, ["image.png", "image/png", data])
    paste = "(t) => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: t, bubbles: true, cancelable: true }))"
    visit.page.evaluate(paste, transfer)
    visit.ranked()
    assert visit.page.locator("#detail-heading").inner_text() == "image.png"


def test_what_is_sent_is_the_file_itself(visit: Visit, photos: dict[str, Path]) -> None:
    with visit.page.expect_request("**/classify") as sent:
        visit.choose(photos["rocket"])
    visit.ranked()
    assert sent.value.method == "POST"
    assert sent.value.headers["content-type"].startswith("multipart/form-data")
    assert len(visit.watch.sent("/classify")) == 1


def test_a_turned_photograph_is_upright_in_preview_tile_and_map(visit: Visit, photos: dict[str, Path]) -> None:
    visit.result(photos["turned"])
    assert corners(visit.page.locator("#preview")) == UPRIGHT
    visit.why()
    visit.page.get_by_label("Opacity of the map").fill("0")
    assert corners(visit.page.locator(".mapped img")) == UPRIGHT
    width, height = visit.page.locator(".mapped canvas").evaluate("(canvas) => [canvas.width, canvas.height]")
    assert width / height == pytest.approx(480 / 320, rel=0.01)
    visit.choose(photos["turned"], photos["turned"])
    visit.counted("3 of 3")
    tile = visit.page.locator(".tile img").first
    expect(tile).to_be_visible()
    assert corners(tile) == UPRIGHT


def test_a_format_that_no_browser_shows_gets_a_placeholder_and_a_ranking(visit: Visit, photos: dict[str, Path]) -> None:
    visit.result(photos["phone"])
    expect(visit.page.locator("#no-preview")).to_have_text("No preview: this browser cannot show this HEIC file.")
    expect(visit.page.locator("#preview")).to_be_hidden()
    visit.why()
    assert visit.page.locator(".mapped canvas").bounding_box() is not None
    visit.choose(photos["phone"], photos["coffee"])
    visit.counted("3 of 3")
    expect(visit.page.locator(".tile").first.locator(".no-picture")).to_have_text("HEIC")


def test_one_after_the_other_shows_the_last_and_keeps_the_first(visit: Visit, photos: dict[str, Path]) -> None:
    visit.result(photos["chelsea"])
    visit.choose(photos["rocket"])
    expect(visit.page.locator("#detail-heading")).to_have_text("rocket.jpg")
    visit.ranked()
    visit.page.get_by_role("button", name="All images").click()
    visit.counted("2 of 2 images done")
    assert visit.page.locator(".tile .name").all_inner_texts() == ["chelsea.jpg", "rocket.jpg"]


def test_a_phone_is_offered_its_camera_and_no_folder(visitor: Visitor, service: Server) -> None:
    phone = visitor(service, NARROW, has_touch=True, is_mobile=True)
    phone.open()
    camera = phone.page.get_by_label("Take a photograph")
    expect(camera).to_be_visible()
    assert camera.get_attribute("capture") == "environment"
    expect(phone.page.get_by_label("Choose a folder")).to_be_hidden()


def test_it_works_below_a_prefix(visitor: Visitor, service: Server, photos: dict[str, Path]) -> None:
    with below_prefix(service.url) as url:
        visit = visitor(url)
        visit.page.goto(url + PREFIX + "/")
        assert visit.result(photos["chelsea"])[0] == "cat"
        visit.why()
    addresses = [request.url for request in visit.watch.requests if request.url.startswith("http")]
    assert len(addresses) > 20
    assert [address for address in addresses if not address.startswith(url + PREFIX + "/")] == []


def test_the_card_of_the_model_says_what_the_service_says(visit: Visit, service: Server) -> None:
    with service.client() as client:
        [model] = client.get("/models").json()["models"]
    said = visit.page.locator("#models").inner_text()
    accuracy = [f"{value:.2f} %" for value in model["accuracy"].values()]
    reasons = [model[name]["reason"].removeprefix("auto: ") for name in ("engine", "device", "dtype")]
    for text in (model["description"], model["variant"], model["licence"], *accuracy, *reasons, model["engine"]["value"]):
        assert text in said, text
    visit.page.get_by_text("What is done to an image first").click()
    expect(visit.page.locator("#models")).to_contain_text(model["preprocess"]["description"])
    assert json.dumps(model["labels"]).count('"label"') == 10
    expect(visit.page.get_by_text("The 10 classes it knows")).to_be_visible()
