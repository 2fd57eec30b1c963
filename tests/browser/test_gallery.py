"""Several images: results as they come, a few requests at once, each opened at length, removed, sent again, saved as a table."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Route, expect

from tests import images
from tests.browser.visit import Visit

pytestmark = pytest.mark.browser

MANY = 200


def small(name: str, colour: tuple[int, int, int] = images.RED) -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": images.encode(images.solid((16, 12), colour))}


def saved(visit: Visit, button: str) -> str:
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name=button).click()
    return download.value.path().read_bytes().decode("utf-8")


def test_several_are_shown_in_order_each_with_its_result(visit: Visit, photos: dict[str, Path]) -> None:
    visit.watch.allow("status of 422")
    visit.choose(*photos.values())
    visit.counted("6 of 7 images done, 1 failed")
    tiles = visit.page.locator(".tile")
    assert tiles.locator(".name").all_inner_texts() == [path.name for path in photos.values()]
    states = tiles.evaluate_all("(all) => all.map((tile) => tile.dataset.state)")
    assert states == ["failed" if name == "broken" else "done" for name in photos]
    assert tiles.first.locator(".label").inner_text() == "cat"
    assert len(visit.watch.sent("/classify")) == len(photos)  # one request an image


def test_one_is_opened_explained_and_left_again(visit: Visit, photos: dict[str, Path]) -> None:
    visit.choose(photos["rocket"], photos["chelsea"], photos["coffee"])
    visit.counted("3 of 3")
    visit.page.get_by_role("button", name="chelsea.jpg cat").click()
    expect(visit.page.locator("#detail-heading")).to_be_focused()
    expect(visit.page.locator("#gallery")).to_be_hidden()
    assert visit.page.locator("#ranking .label").first.inner_text() == "cat"
    visit.why()
    expect(visit.page.locator("#why-heading")).to_have_text("Why cat?")
    visit.page.get_by_role("button", name="Next").click()
    expect(visit.page.locator("#detail-heading")).to_have_text("coffee.jpg")
    expect(visit.page.locator("#why")).to_be_hidden()
    expect(visit.page.get_by_role("button", name="Next")).to_be_disabled()
    visit.page.get_by_role("button", name="Previous").click()
    visit.page.get_by_role("button", name="All images").click()
    expect(visit.page.get_by_role("button", name="chelsea.jpg cat")).to_be_focused()
    visit.page.get_by_role("button", name="rocket.jpg").first.click()
    visit.page.go_back()
    expect(visit.page.locator("#gallery")).to_be_visible()  # and not whatever was before the page


def test_no_more_than_four_requests_are_under_way(visit: Visit) -> None:
    held: list[Route] = []
    visit.page.route("**/classify", lambda route: held.append(route))  # a builtin cannot be a handler
    visit.choose(*(small(f"{i}.png") for i in range(10)))
    expect(visit.page.locator(".tile[data-state=waiting]")).to_have_count(6)
    assert len(held) == 4
    held.pop(0).continue_()
    visit.counted("1 of 10 images done")
    expect(visit.page.locator(".tile[data-state=waiting]")).to_have_count(5)
    assert len(held) == 4
    visit.watch.allow("net::ERR_FAILED")
    visit.page.get_by_role("button", name="Cancel the rest").click()
    visit.counted("1 of 10 images done, 9 cancelled")
    visit.page.unroute_all(behavior="ignoreErrors")
    visit.page.get_by_role("button", name="Try the failed again").click()
    visit.counted("10 of 10 images done")
    expect(visit.page.get_by_role("button", name="Try the failed again")).to_be_hidden()


def test_one_is_removed_and_then_all(visit: Visit) -> None:
    visit.choose(*(small(f"{i}.png") for i in range(3)))
    visit.counted("3 of 3")
    visit.page.get_by_role("button", name="Remove 1.png").click()
    visit.counted("2 of 2")
    expect(visit.page.get_by_role("button", name="Remove 2.png")).to_be_focused()
    visit.page.get_by_role("button", name="Remove all").click()
    expect(visit.page.locator("#gallery")).to_be_hidden()
    expect(visit.page.locator("#file")).to_be_focused()
    assert visit.page.evaluate("() => urls.size") == 0


def test_csv_is_read_back_and_runs_nothing_in_a_spreadsheet(visit: Visit, photos: dict[str, Path]) -> None:
    visit.watch.allow("status of 422")
    names = ["=1+2.png", 'quo"ted, and more.png', "plain.png", "+a.png", "-b.png", "@c.png", "a;b\tc.png"]
    visit.choose(*(small(name) for name in names), {"name": "no.png", "mimeType": "image/png", "buffer": b"no image"})
    visit.counted("7 of 8 images done, 1 failed")
    text = saved(visit, "Save as CSV")
    assert text.startswith("\ufeff")
    assert text.count("\r\n") == text.count("\n") == 9  # RFC 4180, section 2: lines end so, the last one too
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True))
    guarded = ["'=1+2.png", 'quo"ted, and more.png', "plain.png", "'+a.png", "'-b.png", "'@c.png", "a;b\tc.png", "no.png"]
    assert [row["file"] for row in rows] == guarded
    assert [row["status"] for row in rows] == ["200"] * 7 + ["422"]
    assert '"a;b\tc.png",200' in text  # whole, where a semicolon is what parts the cells
    good, bad = rows[0], rows[-1]
    assert 0 < float(good["score_1"]) <= 1
    assert sum(float(good[f"score_{i}"]) for i in range(1, 6)) <= 1
    assert (good["width"], good["height"], good["format"], good["model"]) == ("16", "12", "PNG", "skresnet14_cifar")
    assert bad["label_1"] == ""
    assert bad["problem"].startswith("The bytes are no readable image")


def test_json_is_read_back(visit: Visit, photos: dict[str, Path]) -> None:
    visit.watch.allow("status of 422")
    visit.choose(photos["chelsea"], photos["broken"])
    visit.counted("1 of 2 images done, 1 failed")
    first, second = json.loads(saved(visit, "Save as JSON"))["results"]
    assert (first["index"], first["filename"], first["status"]) == (0, "chelsea.jpg", 200)
    assert first["predictions"][0]["label"] == "cat"
    assert (second["index"], second["filename"], second["status"]) == (1, "broken.jpg", 422)
    assert second["problem"]["type"] == "/problems/image-undecodable"


def test_many_images_hold_little(visit: Visit) -> None:
    """Small pictures are made for those in sight alone, and nothing is held by an address for longer than it is shown."""
    visit.page.evaluate(
        """() => {
          const make = window.createImageBitmap;
          window.made = 0;
          window.createImageBitmap = (...given) => { made += 1; return make(...given); };
        }"""
    )
    visit.choose(*(small(f"{i}.png", (i, 255 - i, 128)) for i in range(MANY)))
    visit.counted(f"{MANY} of {MANY} images done")
    assert visit.page.locator(".tile").count() == MANY
    expect(visit.page.locator(".tile img").first).to_be_visible()
    seen = visit.page.evaluate("() => made")
    assert 0 < seen < MANY / 2
    visit.page.locator(".tile").last.scroll_into_view_if_needed()
    expect(visit.page.locator(".tile").last.locator("img")).to_be_visible()
    assert visit.page.evaluate("() => urls.size") < 5


def test_the_focus_stays_in_the_page_where_its_button_goes(visit: Visit) -> None:
    visit.watch.allow("net::ERR_FAILED", "status of 504")
    held: list[Route] = []
    visit.page.route("**/classify", lambda route: held.append(route))
    visit.choose(*(small(f"{i}.png") for i in range(6)))
    heading = visit.page.locator("#gallery-heading")
    visit.page.get_by_role("button", name="Cancel the rest").click()
    visit.counted("6 cancelled")
    expect(heading).to_be_focused()
    visit.page.unroute_all(behavior="ignoreErrors")
    visit.page.get_by_role("button", name="Try the failed again").click()
    visit.counted("6 of 6 images done")
    expect(heading).to_be_focused()
    for i in range(5):
        visit.page.get_by_role("button", name=f"Remove {i}.png").click()
    expect(visit.page.locator("#detail-heading")).to_be_focused()
    expect(visit.page.locator("#detail-heading")).to_have_text("5.png")


def test_the_way_back_has_one_entry_of_ours(visit: Visit) -> None:
    visit.choose(small("0.png"), small("1.png"))
    visit.counted("2 of 2")
    before = visit.page.evaluate("() => history.length")
    for i in (0, 1, 0):
        visit.page.locator(".tile .open").nth(i).click()
        expect(visit.page.locator("#detail-heading")).to_have_text(f"{i}.png")
        visit.page.get_by_role("button", name="All images").click()
        expect(visit.page.locator(".tile .open").nth(i)).to_be_focused()
    assert visit.page.evaluate("() => [history.length, history.state]") == [before + 1, None]


def test_removing_all_opens_none_on_the_way(visit: Visit) -> None:
    visit.choose(small("0.png"), small("1.png"))
    visit.counted("2 of 2")
    visit.page.evaluate(
        """() => {
          window.opened = 0;
          new MutationObserver(() => { opened += 1; }).observe(document.getElementById("detail-heading"), { childList: true });
        }"""
    )
    visit.page.get_by_role("button", name="Remove all").click()
    expect(visit.page.locator("#file")).to_be_focused()
    assert visit.page.evaluate("() => opened") == 0


def test_a_wait_is_said_once_and_the_counts_at_the_end(visit: Visit) -> None:
    """And not the counts again with each image that is done meanwhile."""
    visit.watch.allow("status of 429")
    visit.page.evaluate(
        """() => {
          const status = document.getElementById("status");
          window.said = [];
          new MutationObserver(() => { said.push(status.textContent); }).observe(status, { childList: true });
        }"""
    )
    asked: list[Route] = []

    def later_at_first(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1:
            route.fulfill(status=429, body="{}", headers={"Retry-After": "2"})
        else:
            route.continue_()

    visit.page.route("**/classify", later_at_first)
    visit.choose(*(small(f"{i}.png") for i in range(6)))
    visit.counted("6 of 6 images done")
    said = visit.page.evaluate("() => said")
    assert len(said) == 2
    assert said[0].endswith("Trying again in 2 s.")
    assert said[1] == "6 of 6 images done."
