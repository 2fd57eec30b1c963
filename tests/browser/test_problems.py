"""What goes wrong is said in words that a person understands, and can be tried again, waited out or cancelled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Route, expect

from app.problems import rows
from tests import images
from tests.browser.visit import Visit

pytestmark = pytest.mark.browser


def problem(slug: str, status: int) -> str:
    return json.dumps({"type": f"/problems/{slug}", "title": "A title", "status": status, "detail": "the detail of it"})


def noise(pixels: int) -> FilePayload:
    """A PNG that no compression makes smaller."""
    samples = np.random.default_rng(0).integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)
    return {"name": "noise.png", "mimeType": "image/png", "buffer": images.encode(Image.fromarray(samples))}


def test_a_file_that_is_no_image(visit: Visit, photos: dict[str, Path]) -> None:
    visit.watch.allow("status of 422")
    visit.choose(photos["broken"])
    alert = visit.page.get_by_role("alert").filter(has_text="not an image that can be read")
    expect(alert).to_be_visible()
    expect(alert.locator("small")).not_to_be_empty()
    expect(visit.page.locator("#no-preview")).to_have_text("No preview: this browser cannot show this file.")
    expect(visit.page.locator("#ask-why")).to_be_hidden()
    visit.result(photos["chelsea"])  # and the page goes on


@pytest.mark.parametrize("slug", ["body-too-large", "scope-forbidden", "deadline-passed", "internal-error"])
def test_problems_are_said_in_plain_words(visit: Visit, photos: dict[str, Path], slug: str) -> None:
    status = next(row.status for row in rows() if row.slug == slug)
    visit.watch.allow(f"status of {status}")
    body = problem(slug, status)
    headers = {"X-Request-ID": "the-id"}
    visit.page.route("**/classify", lambda route: route.fulfill(status=status, body=body, headers=headers))
    visit.choose(photos["coffee"])
    shown = visit.page.locator("#problem")
    expect(shown.locator("small")).to_have_text("The detail of it." + (" Reference: the-id." if status >= 500 else ""))
    assert shown.locator("strong").inner_text() != "A title."
    visit.page.unroute_all()
    visit.page.get_by_role("button", name="Try again").click()
    visit.ranked()
    expect(shown).to_be_empty()


@pytest.mark.parametrize("body", ["<h1>Bad Gateway</h1>", "", "[]"])
def test_what_stands_before_the_service_answers_in_its_place(visit: Visit, photos: dict[str, Path], body: str) -> None:
    visit.watch.allow("status of 502")
    visit.page.route("**/classify", lambda route: route.fulfill(status=502, body=body))
    visit.choose(photos["coffee"])
    expect(visit.page.locator("#problem")).to_contain_text("The service cannot answer at the moment.")


def test_the_service_is_away(visit: Visit, photos: dict[str, Path]) -> None:
    visit.watch.allow("net::ERR_")
    visit.page.context.set_offline(True)
    visit.choose(photos["coffee"])
    expect(visit.page.locator("#problem strong")).to_contain_text("could not be reached")
    visit.page.context.set_offline(False)
    visit.page.get_by_role("button", name="Try again").click()
    visit.ranked()


@pytest.mark.parametrize(("slug", "status"), [("overloaded", 429), ("rate-limited", 429), ("not-ready", 503)])
def test_later_is_waited_for_and_said(visit: Visit, photos: dict[str, Path], slug: str, status: int) -> None:
    visit.watch.allow(f"status of {status}")
    times = 0

    def once(route: Route) -> None:
        nonlocal times
        times += 1
        if times > 1:
            route.continue_()
        else:
            route.fulfill(status=status, body=problem(slug, status), headers={"Retry-After": "1"})

    visit.page.route("**/classify", once)
    visit.choose(photos["chelsea"])
    expect(visit.page.locator("#state")).to_contain_text("Trying again in 1 s.")
    visit.ranked()
    assert times == 2


def test_an_upload_shows_its_progress_and_is_cancelled(visit: Visit) -> None:
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
    tools = visit.devtools()
    tools.send("Network.enable")
    tools.send("Network.emulateNetworkConditions", slow)
    visit.choose(noise(1000))  # 3 MB: 15 s
    expect(visit.page.locator("#state")).to_have_text("Sending, 0 %")
    visit.page.wait_for_selector("#progress:not([value='0'])")
    assert 0 < visit.page.locator("#progress").evaluate("(progress) => progress.value") < 1
    visit.page.get_by_role("button", name="Cancel").click()
    expect(visit.page.locator("#problem")).to_have_text("Cancelled.")
    again = visit.page.get_by_role("button", name="Try again")
    expect(again).to_be_focused()
    tools.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    again.click()
    visit.ranked()


def test_an_explanation_that_fails_is_tried_again(visit: Visit, photos: dict[str, Path]) -> None:
    visit.watch.allow("status of 504")
    visit.result(photos["chelsea"])
    visit.page.route("**/explain", lambda route: route.fulfill(status=504, body=problem("deadline-passed", 504)))
    visit.page.get_by_role("button", name="Why?").click()
    expect(visit.page.locator("#why .problem strong")).to_have_text("The answer took too long. Please try again.")
    visit.page.unroute_all()
    visit.page.locator("#why").get_by_role("button", name="Try again").click()
    expect(visit.page.locator(".chart svg")).to_be_visible()


def test_the_card_comes_once_the_model_is_loaded(visit: Visit) -> None:
    visit.watch.allow("status of 503")
    body = problem("not-ready", 503)
    visit.page.route("**/models", lambda route: route.fulfill(status=503, body=body, headers={"Retry-After": "1"}))
    visit.page.reload()
    expect(visit.page.locator("#models")).to_have_text("The service is not ready yet. Please try again shortly.")
    visit.page.unroute_all()
    expect(visit.page.locator("dl.model")).to_be_visible()


@pytest.mark.parametrize(("said", "shown"), [("0", "Trying again in 1 s."), ("60", "Trying again in 60 s.")])
def test_it_waits_as_long_as_it_is_told_but_not_nothing(visit: Visit, photos: dict[str, Path], said: str, shown: str) -> None:
    visit.watch.allow("status of 429")
    body = problem("rate-limited", 429)
    visit.page.route("**/classify", lambda route: route.fulfill(status=429, body=body, headers={"Retry-After": said}))
    visit.choose(photos["coffee"])
    expect(visit.page.locator("#state")).to_contain_text(shown)


def test_what_is_to_be_waited_for_longer_is_said_and_left(visit: Visit, photos: dict[str, Path]) -> None:
    visit.watch.allow("status of 429")
    body = problem("rate-limited", 429)
    visit.page.route("**/classify", lambda route: route.fulfill(status=429, body=body, headers={"Retry-After": "3600"}))
    visit.choose(photos["coffee"])
    expect(visit.page.locator("#problem small")).to_have_text("The detail of it. It asks to come back in 60 minutes.")
    expect(visit.page.get_by_role("button", name="Try again")).to_be_visible()
    assert len(visit.watch.sent("/classify")) == 1


@pytest.mark.parametrize("body", ["<h1>Welcome to this network</h1>", "null", "{}"])
def test_what_stands_before_the_service_says_that_all_is_well(visit: Visit, photos: dict[str, Path], body: str) -> None:
    visit.page.route("**/models", lambda route: route.fulfill(status=200, body=body))
    visit.page.route("**/classify", lambda route: route.fulfill(status=200, body=body))
    visit.page.reload()
    expect(visit.page.locator("#models")).to_contain_text("could not be reached")
    visit.choose(photos["coffee"])
    expect(visit.page.locator("#problem strong")).to_contain_text("could not be reached")
    visit.page.unroute_all()
    expect(visit.page.locator("dl.model")).to_be_visible()  # it asks again
