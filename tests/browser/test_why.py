"""Why: the drawing of kernel attention and the map over the photograph show the service's numbers, unscaled, in their place."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Route, expect

from tests import images
from tests.browser.explanations import answer_with, explanation
from tests.browser.visit import Visit, number

pytestmark = pytest.mark.browser

BLANK: FilePayload = {"name": "blank.png", "mimeType": "image/png", "buffer": images.encode(images.solid((400, 300)))}


def explained(visit: Visit, photo: Path | FilePayload) -> Any:
    """Open the explanation of a photograph; what the service answered."""
    visit.result(photo)
    with visit.page.expect_response("**/explain*") as answer:
        visit.why()
    return answer.value.json()


def pixel(visit: Visit, x: float, y: float) -> list[int]:
    """Red, green, blue and alpha of the map at a place, as parts of its width and height."""
    visit.watch.allow("willReadFrequently")  # which the browser recommends to whoever reads pixels this often
    found: list[int] = visit.page.locator(".mapped canvas").evaluate(
        "(c, [x, y]) => [...c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data]", [x, y]
    )
    return found


def points(visit: Visit, look: int) -> list[float]:
    """Heights at which a scale's line passes, in pixels from the top."""
    drawn = visit.page.locator(f".plotted .look-{look} polyline").get_attribute("points") or ""
    return [float(point.split(",")[1]) for point in drawn.split()]


def heading(visit: Visit) -> Locator:
    return visit.page.locator("#why-heading")


def test_hovering_a_unit_shows_its_numbers(visit: Visit, photos: dict[str, Path]) -> None:
    answer = explained(visit, photos["chelsea"])
    assert len(answer["kernel_attention"]) == visit.page.locator(".chart [role=option]").count() > 3
    for i in (3, 0, 4):
        unit = answer["kernel_attention"][i]
        visit.unit(i).hover()
        shown = visit.page.locator(".unit")
        expect(shown.locator("strong")).to_have_text(unit["unit"])
        expect(shown.locator("code")).to_have_text(unit["module"])
        expect(shown.locator(".unit-name")).to_contain_text(f"{unit['channels']} channels")
        expect(visit.unit(i)).to_have_attribute("aria-selected", "true")
        for row, scale in zip(shown.locator(".unit-scale").all(), answer["scale_sweep"], strict=True):
            there = scale["kernel_attention"][i]
            assert number(row.locator("[data-difference]").inner_text()) == pytest.approx(there["attention_difference"], abs=6e-4)
            shares = row.locator(".stack i").evaluate_all("(parts) => parts.map((part) => parseFloat(part.style.width) / 100)")
            assert shares == pytest.approx(there["mean_attention"], abs=1e-5)


def test_a_keyboard_moves_along_the_units(visit: Visit, photos: dict[str, Path]) -> None:
    answer = explained(visit, photos["coffee"])
    names = [unit["unit"] for unit in answer["kernel_attention"]]
    expect(heading(visit)).to_be_focused()
    visit.unit(0).focus()
    last = len(names) - 1
    for key, i in (("ArrowRight", 1), ("ArrowRight", 2), ("End", last), ("ArrowRight", last), ("ArrowLeft", -2), ("Home", 0)):
        visit.page.keyboard.press(key)
        focused = visit.page.locator(":focus")
        assert (focused.get_attribute("aria-label") or "").startswith(f"{names[i]}, ")
        expect(visit.page.locator(".unit strong")).to_have_text(names[i])
    assert visit.page.locator("[role=option][tabindex='0']").count() == 1


def test_lines_are_drawn_to_the_scale_of_the_axis(visit: Visit) -> None:
    answer_with(visit, explanation())
    explained(visit, BLANK)
    zero = float(visit.page.locator(".chart .zero").get_attribute("y1") or "nan")
    top = float(visit.page.locator(".chart .grid").last.get_attribute("y1") or "nan")
    expect(visit.page.locator(".below")).to_contain_text("from \u22120.25 to 0.25, of \u22121 to 1")
    for look in range(3):
        values = [-0.05 + look / 50 + i / 100 for i in range(16)]
        assert [0.25 * (zero - y) / (zero - top) for y in points(visit, look)] == pytest.approx(values, abs=1e-3)
    visit.page.get_by_label("Whole range").check()
    assert [(zero - y) / (zero - top) for y in points(visit, 0)] == pytest.approx([-0.05 + i / 100 for i in range(16)], abs=1e-3)
    assert visit.page.locator(".chart .stage").all_text_contents() == ["SK_2", "SK_3", "SK_4", "SK_5"]


@pytest.mark.parametrize(("shift", "limit"), [(0.0, "0.25"), (0.2, "0.50"), (-0.6, None)])
def test_the_axis_holds_every_value_and_stays_symmetric(visit: Visit, shift: float, limit: str | None) -> None:
    answer_with(visit, explanation(shift=shift))
    explained(visit, BLANK)
    said = f"from \u2212{limit} to {limit}" if limit else "whole of what is possible"
    expect(visit.page.locator(".below")).to_contain_text(said)
    band = visit.page.locator(".chart .band").first
    top, height = (float(band.get_attribute(name) or "nan") for name in ("y", "height"))
    assert all(top <= y <= top + height for look in range(3) for y in points(visit, look))


def test_scales_are_switched_off_and_on(visit: Visit, photos: dict[str, Path]) -> None:
    explained(visit, photos["chelsea"])
    lines, rows = visit.page.locator(".plotted .line"), visit.page.locator(".unit-scale")
    before = points(visit, 0)
    for box, left in ((1, 2), (2, 1)):
        visit.page.locator(".scales input").nth(box).uncheck()
        expect(lines).to_have_count(left)
        expect(rows).to_have_count(left)
    assert points(visit, 0) == before  # what is left does not move
    visit.page.locator(".scales input").nth(2).check()
    expect(lines).to_have_count(2)
    frames = visit.page.locator(".frames rect")
    visit.page.locator(".scales .chip").nth(2).hover()
    assert [("lit" in (frame.get_attribute("class") or "")) for frame in frames.all()] == [False, False, True]


def test_three_kernels_are_stacked_and_the_split_input_is_said(visit: Visit) -> None:
    answer_with(visit, explanation(sizes=(3, 5, 7), comparable=False))
    explained(visit, BLANK)
    assert visit.page.locator(".plotted .share").count() == 3 * 16
    heights = visit.page.locator(".plotted .share").evaluate_all("(all) => all.slice(0, 3).map((r) => +r.getAttribute('height'))")
    shares = explanation(sizes=(3, 5, 7))["kernel_attention"][0]["mean_attention"]
    assert [height / sum(heights) for height in heights] == pytest.approx(shares, abs=1e-6)
    said = visit.page.locator(".honest")
    expect(said).to_have_text("These numbers cannot be compared with the paper's: each branch sees other channels.")
    expect(visit.page.locator(".kernels")).to_have_text("3\u00d735\u00d757\u00d77")


def test_the_table_says_the_same(visit: Visit, photos: dict[str, Path]) -> None:
    answer = explained(visit, photos["rocket"])
    visit.page.get_by_text("The same as a table").click()
    rows = visit.page.locator(".which tbody tr")
    expect(rows).to_have_count(len(answer["kernel_attention"]))
    for i, row in enumerate(rows.all()):
        cells = row.locator("th, td").all_inner_texts()
        unit = answer["kernel_attention"][i]
        assert cells[:3] == [unit["unit"], unit["module"], str(unit["channels"])]
        wanted = [scale["kernel_attention"][i]["attention_difference"] for scale in answer["scale_sweep"]]
        assert [number(cell) for cell in cells[3:6]] == pytest.approx(wanted, abs=6e-5)
        assert [number(cell) for cell in cells[6:]] == pytest.approx(
            [*unit["mean_attention"], unit["mean_kernel_size"]], abs=6e-4
        )


def test_the_map_lies_in_its_box_with_its_values_as_colours(visit: Visit) -> None:
    answer_with(visit, explanation(values=((0.0, 8.0), (0.0, 8.0)), box=(100, 0, 400, 300)))
    explained(visit, BLANK)
    assert pixel(visit, 0.99, 0.5) == [253, 231, 37, 255]  # viridis' end: the right of the box
    assert pixel(visit, 0.27, 0.5) == [68, 1, 84, 255]  # and its beginning
    assert pixel(visit, 0.25 + 0.375, 0.5) == pytest.approx([33, 144, 141, 255], abs=4)  # between the two cells
    assert pixel(visit, 0.1, 0.5)[3] < 200  # outside of what the network saw
    expect(visit.page.locator(".ends")).to_have_text("0.008.00")
    expect(visit.page.locator(".legend .note")).to_contain_text(
        "from 0.00 to 8.00. Its mean, 4.00, and the class's own bias, 0.50,"
    )


def test_values_below_zero_have_a_colour_of_their_own_and_zero_has_none(visit: Visit) -> None:
    answer_with(visit, explanation(values=((-2.0, 0.0, 4.0),)))
    explained(visit, BLANK)
    against, nothing, evidence = (pixel(visit, x, 0.5) for x in (0.1, 0.5, 0.9))
    assert evidence == [196, 74, 0, 255]
    assert against[2] > 200 > 100 > against[0]  # blue
    assert 100 < against[3] < 200  # half as much as the most there is
    assert nothing[3] < 10
    expect(visit.page.locator(".ends")).to_have_text("\u22124.000.004.00")  # symmetric about 0
    expect(visit.page.locator(".legend .note")).to_contain_text("from \u22122.00 to 4.00")


def test_the_real_map_is_brightest_where_the_service_says(visit: Visit, photos: dict[str, Path]) -> None:
    activation = explained(visit, photos["chelsea"])["class_activation"]
    box, rows = activation["box"], activation["map"]
    assert min(map(min, rows)) >= 0  # of this photograph: viridis, whose green only grows
    cells = [(value, x, y) for y, row in enumerate(rows) for x, value in enumerate(row)]
    with Image.open(photos["chelsea"]) as image:
        width, height = image.size

    def green(x: int, y: int) -> int:
        u = box["left"] + (x + 0.5) / len(rows[0]) * (box["right"] - box["left"])
        v = box["top"] + (y + 0.5) / len(rows) * (box["bottom"] - box["top"])
        return pixel(visit, u / width, v / height)[1]

    seen = [green(x, y) for _, x, y in sorted(cells)]
    assert sorted(seen) == pytest.approx(seen, abs=6)


def test_opacity_is_a_slider(visit: Visit, photos: dict[str, Path]) -> None:
    explained(visit, photos["coffee"])
    slider, canvas = visit.page.get_by_label("Opacity of the map"), visit.page.locator(".mapped canvas")
    slider.focus()
    visit.page.keyboard.press("Home")
    expect(canvas).to_have_css("opacity", "0")
    visit.page.keyboard.press("ArrowRight")
    expect(canvas).to_have_css("opacity", "0.05")
    visit.page.keyboard.press("End")
    expect(canvas).to_have_css("opacity", "1")
    expect(slider).to_have_attribute("aria-valuetext", "100 percent")


def test_another_class_is_chosen_from_the_ranking_and_from_the_list(visit: Visit, photos: dict[str, Path]) -> None:
    answer = explained(visit, photos["chelsea"])
    second = answer["predictions"][1]
    with visit.page.expect_response(f"**/explain?class_index={second['index']}") as asked:
        visit.page.locator(".chips input[type=radio]").nth(1).check()
    expect(heading(visit)).to_have_text(f"Why {second['label']}?")
    activation = asked.value.json()["class_activation"]
    assert activation["index"] == second["index"]
    expect(visit.page.locator(".legend .note")).to_contain_text(f"Evidence for {second['label']}")
    visit.page.get_by_text("Another of the 10 classes").click()
    visit.page.get_by_label("Search").fill("SHI")
    options = visit.page.locator("#other-class option")
    assert options.all_inner_texts() == ["ship"]
    visit.page.get_by_label("Class", exact=True).select_option("ship")
    expect(heading(visit)).to_have_text("Why ship?")
    assert visit.page.locator(".chips input[type=radio]:checked").count() == 0
    visit.page.locator(".chips input[type=radio]").nth(1).check()
    expect(heading(visit)).to_have_text(f"Why {second['label']}?")
    assert len(visit.watch.sent("/explain")) == 3  # what was asked before is kept


def test_the_explanation_is_saved_as_json_and_as_a_figure(visit: Visit, photos: dict[str, Path], tmp_path: Path) -> None:
    answer = explained(visit, photos["chelsea"])
    with visit.page.expect_download() as saved:
        visit.page.locator("#why").get_by_role("button", name="Save as JSON").click()
    assert saved.value.suggested_filename == "chelsea-explanation.json"
    assert json.loads(saved.value.path().read_text(encoding="utf-8")) == answer
    for button, name in (("Save the figure", "chelsea-figure.png"), ("Save the photograph with its map", "chelsea-map.png")):
        with visit.page.expect_download() as saved:
            visit.page.get_by_role("button", name=button).click()
        assert saved.value.suggested_filename == name
        with Image.open(saved.value.path()) as image:
            assert image.format == "PNG"
            assert name != "chelsea-map.png" or image.size == (451, 300)
    overlay = visit.watch.sent("/explain")[-1]
    assert overlay.url.endswith("?picture=overlay")
    assert overlay.headers["accept"] == "image/png"


def test_the_request_is_a_line_for_a_shell(visit: Visit, photos: dict[str, Path]) -> None:
    name = 'it\'s "odd", $HOME; `x`.jpg'
    visit.result({"name": name, "mimeType": "image/jpeg", "buffer": photos["chelsea"].read_bytes()})
    visit.why()
    visit.page.get_by_text("This request for a command line").click()
    lines = [shlex.split(line) for line in visit.page.locator("#lines code").all_inner_texts()]
    part = 'file=@"' + name.replace('"', '\\"') + '"'
    assert lines[0] == ["curl", "-F", part, f"{visit.url}/classify"]
    assert lines[1] == ["curl", "-F", part, f"{visit.url}/explain"]
    assert lines[2][:5] == ["curl", "-H", "Accept: image/png", "-F", part]
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.page.get_by_role("button", name="Copy the line: Classify").click()
    copied = visit.page.evaluate("() => navigator.clipboard.readText()")
    assert shlex.split(copied) == lines[0]


def test_closing_gives_the_focus_back(visit: Visit, photos: dict[str, Path]) -> None:
    explained(visit, photos["rocket"])
    expect(visit.page.get_by_role("button", name="Why?")).to_have_attribute("aria-expanded", "true")
    visit.page.locator("#why").get_by_role("button", name="Close").click()
    expect(visit.page.locator("#why")).to_be_hidden()
    expect(visit.page.get_by_role("button", name="Why?")).to_be_focused()
    assert visit.page.evaluate("() => urls.size") == 1  # the preview's; that of the map is given back


def test_what_is_shown_stays_when_another_class_fails(visit: Visit, photos: dict[str, Path]) -> None:
    """What is saved is what is shown, and the choice says so."""
    visit.watch.allow("status of 504")
    answer = explained(visit, photos["chelsea"])
    visit.page.route("**/explain?class_index=*", lambda route: route.fulfill(status=504, body="{}"))
    radios = visit.page.locator(".chips input[type=radio]")
    radios.nth(1).click()
    again = visit.page.locator("#why").get_by_role("button", name="Try again")
    expect(again).to_be_visible()
    expect(radios.nth(0)).to_be_checked()
    with visit.page.expect_download() as saved:
        visit.page.locator("#why").get_by_role("button", name="Save as JSON").click()
    assert json.loads(saved.value.path().read_text(encoding="utf-8")) == answer
    visit.page.unroute_all()
    again.click()  # for the class that was wanted
    expect(heading(visit)).to_have_text(f"Why {answer['predictions'][1]['label']}?")
    expect(heading(visit)).to_be_focused()  # the button has gone
    expect(radios.nth(1)).to_be_checked()


def test_what_was_begun_says_nothing_after_closing(visit: Visit, photos: dict[str, Path]) -> None:
    visit.watch.allow("status of 504", "net::ERR")
    explained(visit, photos["chelsea"])
    held: list[Route] = []
    visit.page.route("**/explain", lambda route: held.append(route))  # a builtin cannot be a handler
    with visit.page.expect_request("**/explain"):
        visit.page.get_by_role("button", name="Save the figure").click()
    visit.page.get_by_text("Another of the 10 classes").click()
    visit.page.get_by_label("Class", exact=True).select_option("ship")
    visit.page.locator("#why").get_by_role("button", name="Close").click()
    for route in held:
        route.fulfill(status=504, body="{}")
    visit.page.get_by_role("button", name="Why?").click()  # out of what is kept
    visit.page.wait_for_timeout(400)  # longer than the list waits before it asks
    assert not [request.url for request in visit.watch.sent("/explain") if "class_index" in request.url]
    expect(visit.page.locator("#why .problem")).to_be_empty()
    expect(heading(visit)).to_have_text("Why cat?")


def test_another_model_than_that_of_the_ranking_is_said(visit: Visit) -> None:
    answer_with(visit, explanation())  # whose digest is no model's
    visit.result(BLANK)
    with visit.page.expect_request("**/models"):  # for the card of the model that there is now
        visit.why()
    expect(visit.page.locator("#why > [role=status]")).to_contain_text("By another model than the ranking above")
    expect(visit.page.locator(".other")).to_have_count(0)  # its classes are not known
