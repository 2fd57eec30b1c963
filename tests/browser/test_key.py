"""A service that wants a key: asked for once, used for everything, kept only as long as somebody wants, shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import KEY, Visitor
from tests.browser.visit import Visit
from tests.e2e.server import Server

pytestmark = pytest.mark.browser

STORED = "() => JSON.stringify([{ ...sessionStorage }, { ...localStorage }, document.cookie])"


@pytest.fixture
def locked(visitor: Visitor, keyed: Server) -> Visit:
    made = visitor(keyed)
    made.watch.allow("status of 401")
    made.page.goto(made.url + "/")
    expect(made.page.get_by_role("textbox", name="Key")).to_be_visible()
    return made


def give(visit: Visit, key: str, *, keep: bool = False) -> None:
    visit.page.get_by_role("textbox", name="Key").fill(key)
    visit.page.get_by_label("Keep it until this tab is closed").set_checked(keep)
    visit.page.get_by_role("button", name="Use it").click()


def test_what_waits_for_the_key_goes_on_with_it(locked: Visit, photos: dict[str, Path]) -> None:
    locked.choose(photos["chelsea"])
    expect(locked.page.locator("#state")).to_have_text("Waiting for the key.")
    expect(locked.page.get_by_role("textbox", name="Key")).to_be_focused()
    give(locked, "not-the-key-of-anybody")
    expect(locked.page.locator("#key-fault")).to_have_text("This key was not accepted.")
    give(locked, KEY)
    locked.ranked()
    expect(locked.page.locator("dl.model")).to_be_visible()
    locked.why()
    expect(locked.page.locator("#why-heading")).to_have_text("Why cat?")
    with locked.page.expect_download():
        locked.page.get_by_role("button", name="Save the figure").click()
    keys = {request.all_headers().get("authorization") for request in locked.watch.sent("/explain")}
    assert keys == {f"Bearer {KEY}"}


def test_several_wait_for_one_key(locked: Visit, photos: dict[str, Path]) -> None:
    locked.choose(*(photos[name] for name in ("chelsea", "coffee", "rocket", "astronaut", "turned")))
    locked.counted("Waiting for the key.")
    give(locked, KEY)
    locked.counted("5 of 5 images done")


def test_the_key_is_shown_nowhere_and_forgotten_with_the_page(locked: Visit, photos: dict[str, Path]) -> None:
    give(locked, KEY)
    locked.result(photos["coffee"])
    locked.page.get_by_text("This request for a command line").click()
    assert "Authorization: Bearer YOUR_KEY" in locked.page.locator("#lines code").first.inner_text()
    assert KEY not in locked.page.content()
    assert locked.page.locator("#key-field").input_value() == ""
    assert KEY not in locked.page.evaluate(STORED)
    assert not [request.url for request in locked.watch.requests if KEY in request.url]
    locked.page.reload()
    expect(locked.page.get_by_role("textbox", name="Key")).to_be_visible()


def test_the_key_is_kept_in_the_tab_where_that_is_ticked(locked: Visit) -> None:
    give(locked, KEY, keep=True)
    expect(locked.page.locator("dl.model")).to_be_visible()
    locked.page.reload()
    expect(locked.page.locator("dl.model")).to_be_visible()
    expect(locked.page.get_by_role("textbox", name="Key")).to_be_hidden()
    locked.page.get_by_role("button", name="Forget it").click()
    assert KEY not in locked.page.evaluate(STORED)
    expect(locked.page.get_by_role("textbox", name="Key")).to_be_focused()


def test_what_no_header_can_hold_is_refused_here(locked: Visit) -> None:
    give(locked, "schlüssel und so")
    expect(locked.page.locator("#key-fault")).to_contain_text("no spaces")
    expect(locked.page.get_by_role("textbox", name="Key")).to_be_focused()


def test_a_refused_key_is_marked_and_an_accepted_one_is_not(locked: Visit) -> None:
    field = locked.page.locator("#key-field")
    give(locked, "no key")
    expect(field).to_have_attribute("aria-invalid", "true")
    give(locked, KEY)
    expect(field).to_have_attribute("aria-invalid", "false")


def test_what_stands_before_the_host_is_not_passed_on(visitor: Visitor, service: Server, photos: dict[str, Path]) -> None:
    """Somebody's name and password for what stands before the service, in the address of the page."""
    visit = visitor(service)
    visit.page.goto(service.url.replace("http://", "http://somebody:secret@") + "/")
    expect(visit.page.locator("dl.model")).to_be_visible()
    visit.result(photos["chelsea"])
    visit.page.get_by_text("This request for a command line").click()
    assert visit.page.locator("#lines code").first.inner_text() == f"curl -F file=@chelsea.jpg {visit.url}/classify"


def test_text_is_dragged_into_the_field(locked: Visit) -> None:
    """Files are taken by the page, text is left to the browser."""
    left = """(kind) => {
      const dataTransfer = new DataTransfer();
      if (kind === "Files") dataTransfer.items.add(new File(["a"], "a.png", { type: "image/png" }));
      else dataTransfer.setData(kind, "some text");
      const event = new DragEvent("dragover", { dataTransfer, bubbles: true, cancelable: true });
      return document.getElementById("key-field").dispatchEvent(event);
    }"""
    assert locked.page.evaluate(left, "text/plain") is True
    assert locked.page.evaluate(left, "Files") is False
