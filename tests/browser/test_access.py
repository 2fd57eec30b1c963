"""For everybody: by keyboard alone, with a screen reader, at every width, in both schemes, without motion."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import expect

from tests.browser.conftest import NARROW, WIDE, Visitor
from tests.browser.visit import STATES, Visit
from tests.e2e.server import Server

pytestmark = pytest.mark.browser

GROUND = "() => getComputedStyle(document.documentElement).backgroundColor"
LIGHT, DARK = "rgb(244, 247, 247)", "rgb(11, 20, 23)"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
GROUNDS = {"light": LIGHT, "dark": DARK}


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    visitor: Visitor, service: Server, photos: dict[str, Path], state: str
) -> None:
    visit = visitor(service, reduced_motion="reduce")
    visit.bring(state, photos)
    for width, height in (NARROW, WIDE):
        visit.page.set_viewport_size({"width": width, "height": height})
        assert visit.overflow() == 0
        for scheme in SCHEMES:
            visit.page.emulate_media(color_scheme=scheme)
            assert visit.page.evaluate(GROUND) == GROUNDS[scheme]
            found = Axe().run(visit.page).response["violations"]
            assert [(each["id"], each["impact"], [node["html"][:150] for node in each["nodes"]]) for each in found] == []


def test_the_switch_of_colours_has_three_states_and_is_kept(visitor: Visitor, service: Server) -> None:
    visit = visitor(service, color_scheme="dark")
    visit.open()
    assert visit.page.evaluate(GROUND) == DARK
    for choice, ground in (("Light", LIGHT), ("Dark", DARK), ("Light", LIGHT)):
        visit.page.get_by_role("radio", name=choice).check()
        assert visit.page.evaluate(GROUND) == ground
    visit.page.reload()
    assert visit.page.evaluate(GROUND) == LIGHT
    expect(visit.page.get_by_role("radio", name="Light")).to_be_checked()
    visit.page.get_by_role("radio", name="Auto").check()
    assert visit.page.evaluate(GROUND) == DARK
    assert visit.page.evaluate("() => localStorage.length") == 0


def test_motion_is_left_out_where_that_is_wanted(visitor: Visitor, service: Server, photos: dict[str, Path]) -> None:
    for wanted, moving in (("reduce", False), ("no-preference", True)):
        visit = visitor(service, reduced_motion=wanted)
        visit.open()
        visit.result(photos["chelsea"])
        seconds = visit.page.locator("#ranking .bar i").first.evaluate(
            "(bar) => parseFloat(getComputedStyle(bar).transitionDuration)"
        )
        assert (seconds > 0) is moving


def walk(visit: Visit, wanted: str, most: int = 40) -> list[str]:
    """Press Tab until the element is reached; what was met on the way, each with its outline seen."""
    met = []
    for _ in range(most):
        visit.page.keyboard.press("Tab")
        name, seen, reached = visit.page.evaluate(
            """(wanted) => {
              const at = document.activeElement;
              const near = [at, at.closest("label, .button"), at.nextElementSibling, at.querySelector?.("rect")].filter(Boolean);
              const style = (e) => getComputedStyle(e);
              const seen = near.some((e) => style(e).outlineStyle !== "none" && parseFloat(style(e).outlineWidth) >= 2
                || parseFloat(style(e).strokeWidth) > 2);
              return [at.id || at.textContent.trim().slice(0, 30), seen, at.matches(wanted)];
            }""",
            wanted,
        )
        assert seen, f"nothing shows that {name} has the focus"
        met.append(name)
        if reached:
            return met
    raise AssertionError(f"{wanted} was not reached: {met}")


def test_everything_is_done_by_keyboard_alone(visit: Visit, photos: dict[str, Path]) -> None:
    keyboard = visit.page.keyboard
    visit.page.on("filechooser", lambda chooser: chooser.set_files([photos["chelsea"]]))
    walk(visit, "#file")
    keyboard.press("Enter")
    visit.ranked()
    walk(visit, "#ask-why")
    keyboard.press("Enter")
    expect(visit.page.locator(".chart svg")).to_be_visible()
    expect(visit.page.locator("#why-heading")).to_be_focused()
    walk(visit, "#opacity")
    keyboard.press("ArrowLeft")
    expect(visit.page.locator(".mapped canvas")).to_have_css("opacity", "0.65")
    walk(visit, "input[name=class]")
    keyboard.press("ArrowDown")
    expect(visit.page.locator("#why-heading")).to_have_text("Why dog?")
    walk(visit, ".scales input")
    keyboard.press("Space")
    expect(visit.page.locator(".plotted .line")).to_have_count(2)
    walk(visit, ".chart [role=option]")
    keyboard.press("ArrowRight")
    expect(visit.page.locator(".unit strong")).to_have_text("SK_2_2")
    walk(visit, "#whole")
    keyboard.press("Space")
    expect(visit.page.locator(".below")).to_contain_text("whole of what is possible")
    walk(visit, "footer a")


def test_what_happens_is_said(visit: Visit, photos: dict[str, Path]) -> None:
    status = visit.page.locator("#status")
    expect(status).to_have_attribute("role", "status")
    visit.result(photos["chelsea"])
    expect(status).to_contain_text("Most likely cat, ")
    visit.why()
    expect(status).to_have_text("The map shows the evidence for cat.")
    assert (visit.unit(0).get_attribute("aria-label") or "").startswith("SK_2_1, layer1.0.conv1, 64 channels. Difference ")


def test_printing_leaves_the_buttons_out(visit: Visit, photos: dict[str, Path]) -> None:
    visit.result(photos["chelsea"])
    visit.page.emulate_media(media="print")
    expect(visit.page.locator(".intake")).to_be_hidden()
    expect(visit.page.locator("#ask-why")).to_be_hidden()
    expect(visit.page.locator("#ranking")).to_be_visible()


def test_forced_colours_keep_the_bars(visitor: Visitor, service: Server, photos: dict[str, Path]) -> None:
    visit = visitor(service, forced_colors="active")
    visit.open()
    visit.result(photos["chelsea"])
    assert visit.page.locator("#ranking .bar").first.evaluate("(bar) => getComputedStyle(bar).borderTopStyle") == "solid"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_documentation_asks_no_other_host(visitor: Visitor, service: Server, path: str) -> None:
    visit = visitor(service)
    visit.watch.tolerate("script-src eval")  # ReDoc tries, and does without
    visit.page.goto(service.url + path)
    expect(visit.page.get_by_text("/classify/batch").first).to_be_visible()
