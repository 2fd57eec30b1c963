"""Somebody at the page: what one does there, by the words that one sees."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import CDPSession, FilePayload, Locator, Page, expect

from tests.browser.watch import Watch

OVERFLOW = """() => new Promise((tell) => {
  const root = document.documentElement, end = performance.now() + 10000;
  const look = () => {
    const wider = root.scrollWidth - root.clientWidth;
    if (wider === 0 || performance.now() > end) tell(wider); else requestAnimationFrame(look);
  };
  look();
})"""
EMPTY, RESULT, WHY, GRID, ERROR = "empty", "result", "why", "grid", "error"
STATES = (EMPTY, RESULT, WHY, GRID, ERROR)


class Visit:
    """One page in a context of its own."""

    def __init__(self, page: Page, watch: Watch, url: str) -> None:
        self.page, self.watch, self.url = page, watch, url

    def open(self) -> None:
        """Go there, and wait until the card of the model is shown."""
        self.page.goto(self.url + "/")
        expect(self.page.locator("dl.model")).to_be_visible()

    def choose(self, *files: Path | FilePayload) -> None:
        """As if by the button."""
        chosen: Sequence[Any] = files
        self.page.get_by_label("Choose images").set_input_files(chosen)

    def result(self, *files: Path | FilePayload) -> list[str]:
        """Choose one and wait; its labels, best first."""
        self.choose(*files)
        self.ranked()
        return self.page.locator("#ranking .label").all_inner_texts()

    def ranked(self) -> None:
        """Wait for the ranking of the image that is shown."""
        expect(self.page.locator("#ranking li").first).to_be_visible()

    def why(self) -> None:
        """Open the explanation, and wait for its drawing."""
        self.page.get_by_role("button", name="Why?").click()
        expect(self.page.locator(".chart svg")).to_be_visible()

    def counted(self, text: str) -> None:
        """Wait until the grid's counts say this."""
        expect(self.page.locator("#counts")).to_contain_text(text, timeout=30_000)

    def unit(self, i: int) -> Locator:
        """The column of a unit in the drawing."""
        return self.page.locator(".chart [role=option]").nth(i)

    def devtools(self) -> CDPSession:
        """What the browser can do that no page can."""
        return self.page.context.new_cdp_session(self.page)

    def bring(self, state: str, photos: dict[str, Path]) -> None:
        """One of the states in which the page is looked at."""
        self.open()
        if state in (RESULT, WHY):
            self.result(photos["chelsea"])
        if state == WHY:
            self.why()
            for summary in self.page.locator("#why summary").all():
                summary.click()
        if state == GRID:
            self.choose(*photos.values())
            self.counted(f"{len(photos) - 1} of {len(photos)} images done, 1 failed")
        if state == ERROR:
            self.choose(photos["broken"])
            expect(self.page.locator("#problem strong")).to_be_visible()
        self.watch.allow("status of 422")

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window; what is drawn to its width has ten seconds to be drawn anew."""
        found: int = self.page.evaluate(OVERFLOW)
        return found


def corners(shown: Locator) -> list[tuple[int, ...]]:
    """Colours near the four corners of what is drawn, from the top left in reading order, to the nearest of 0, 128 and 255."""
    image = Image.open(io.BytesIO(shown.screenshot())).convert("RGB")
    width, height = image.size
    places = [(x, y) for y in (0.25, 0.75) for x in (0.25, 0.75)]
    found = [image.getpixel((int(width * x), int(height * y))) for x, y in places]
    return [
        tuple(min((0, 128, 255), key=lambda level: abs(level - c)) for c in pixel) for pixel in found if isinstance(pixel, tuple)
    ]


def number(text: str) -> float:
    """A number as the page writes it."""
    found = re.search(r"[+\u2212]?\d+(\.\d+)?", text)
    assert found is not None, text
    return float(found[0].replace("\u2212", "-"))
