"""What a figure holds: the numbers as they are, axes that flatter nothing, and texts that can be read."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from model import plots
from model.errors import FiguresUnavailable
from model.figure import GATE, compose, draw, heading, least_drawn, names, reduced
from model.types import Box, Prediction
from tests import images as make
from tests.model.explanations import MAKER, explanation
from tests.repo.architecture import ROOT

PHOTOGRAPH = make.photograph(size=(120, 80))
CROWD = [f"SK_{s}_{i}" for s, count in ((2, 3), (3, 4), (4, 23), (5, 3)) for i in range(1, count + 1)]


def composed(**options: Any) -> Figure:
    return compose(PHOTOGRAPH, explanation(**options), MAKER)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


def axes_titled(figure: Figure, start: str) -> Any:
    (found,) = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(start)]
    return found


def test_the_lines_are_the_numbers() -> None:
    told = explanation()
    axes = axes_titled(composed(), "Attention difference")
    lines = {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}
    assert list(lines) == ["as sent", "centre enlarged 1.5×", "centre enlarged 2.0×"]  # noqa: RUF001 - the sign
    for line, each in zip(lines.values(), told.scales, strict=True):
        assert line.get_ydata().tolist() == [unit.attention_difference for unit in each.units]
        assert line.get_xdata().tolist() == [0, 1, 2, 3]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["SK_2_1", "SK_2_2", "SK_3_1", "SK_3_2"]


def test_lines_differ_in_more_than_colour() -> None:
    lines = axes_titled(composed(), "Attention difference").get_lines()[-3:]
    for look in ("color", "linestyle", "marker"):
        assert len({getattr(line, f"get_{look}")() for line in lines}) == 3


@pytest.mark.parametrize(("first", "limit"), [(-0.001, 0.25), (0.17, 0.25), (-0.3, 0.5), (0.48, 1.0), (0.9, 1.0)])
def test_the_axis_of_differences_is_even_and_not_fitted(first: float, limit: float) -> None:
    axes = axes_titled(composed(first=first), "Attention difference")
    assert axes.get_ylim() == (-limit, limit)
    assert any(line.get_ydata()[0] == line.get_ydata()[1] == 0 for line in axes.get_lines())  # the line at 0


def test_the_panels_say_what_they_show() -> None:
    found = texts(composed())
    for part in ("cat: score 0.750", "What the network saw", "Evidence for cat", "Best 2 classes", "share of 5×5 less 3×3", GATE):  # noqa: RUF001
        assert part in "\n".join(found).replace("\n", " ") or part in found, part
    assert "map: mean 1.00 − bias 0.50 = logit 0.50" in found  # noqa: RUF001
    assert any("sknet-made-up, weights sha256:0123456789abcde…" in text for text in found)
    assert any("Comparable to the paper: a test said so." in text for text in found)


def test_split_inputs_are_said_not_to_compare() -> None:
    assert any("NOT comparable to the paper: the input is split." in text for text in texts(composed(comparable=False)))


def test_the_frames_are_what_the_network_saw() -> None:
    patches = axes_titled(composed(), "What the network saw").patches
    frames = [p for p in patches if isinstance(p, Rectangle) and p.get_edgecolor()[:3] != (1, 1, 1)]
    assert [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in frames] == [
        (19.5, -0.5, 80, 80), (29.5, 9.5, 60, 60), (39.5, 19.5, 40, 40),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [(30, 20_000), (2, 3000), (5000, 3), (1, 65_535)])
def test_the_frames_of_a_long_thin_photograph_are_in_its_middle(size: tuple[int, int]) -> None:
    (width, height), side, told = size, min(size), explanation()
    box = Box((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    scales = tuple(replace(each, box=box) for each in told.scales)
    told = replace(told, image=replace(told.image, width=width, height=height), scales=scales)
    drawn = least_drawn(*size)
    for frame in axes_titled(compose(make.solid(drawn), told, MAKER), "What the network saw").patches:
        assert isinstance(frame, Rectangle)
        left, top = frame.get_x(), frame.get_y()
        right, bottom = left + frame.get_width(), top + frame.get_height()
        assert (left + right + 1, top + bottom + 1) == pytest.approx(drawn)
        assert (right - left, bottom - top) == pytest.approx((side * drawn[0] / width, side * drawn[1] / height))


def test_a_frame_ends_with_the_photograph() -> None:
    told = explanation()
    told = replace(told, scales=tuple(replace(each, box=Box(-5, -5, 130, 90)) for each in told.scales))
    for frame in axes_titled(compose(PHOTOGRAPH, told, MAKER), "What the network saw").patches:
        assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((-0.5, -0.5), 120, 80)


def test_the_colour_bar_has_the_raw_numbers() -> None:
    figure = composed()
    (bar,) = [axes for axes in figure.axes if axes.get_xlabel().startswith("map: mean")]
    assert bar.get_xlim() == (-3, 3)  # the strongest is 3, and there is evidence against


def test_bars_are_the_scores_on_0_to_1() -> None:
    axes = axes_titled(composed(labels=("cat", "dog", "elk")), "Best 3 classes")
    bars = [patch.get_width() for patch in axes.patches]
    assert bars[1::2] == [0.75, 0.375, 0.1875]
    assert bars[::2] == [1, 1, 1]  # what 1 would be
    assert axes.get_xlim() == (0, 1)


def test_more_kernels_show_their_shares() -> None:
    assert not [axes for axes in composed().axes if axes.get_title(loc="left").startswith("Share")]
    told = explanation(kernel_sizes=(3, 5, 7))
    axes = axes_titled(compose(PHOTOGRAPH, told, MAKER), "Share of each kernel")
    assert [container.get_label() for container in axes.containers] == ["3×3", "5×5", "7×7"]  # noqa: RUF001
    shares = np.array([[bar.get_height() for bar in container] for container in axes.containers]).T
    np.testing.assert_allclose(shares, [unit.mean_attention for unit in told.attention.units], rtol=0, atol=1e-12)
    assert axes.get_ylim() == (0, 1)
    assert f"{told.attention.units[0].mean_kernel_size:.2f}" in [text.get_text() for text in axes.texts]
    assert len({(bar[0].get_facecolor(), bar[0].get_hatch()) for bar in axes.containers}) == 3


def test_without_a_class_that_is_good_enough_there_is_still_a_figure() -> None:
    told = explanation(labels=())
    assert heading(told) == "cat: score 0.750"  # of the map
    assert "No class is good enough" in texts(compose(PHOTOGRAPH, told, MAKER))


@pytest.mark.parametrize("options", [{}, {"kernel_sizes": (3, 5, 7)}, {"names": CROWD}, {"labels": ("a",)}])
def test_the_png_has_its_size_and_something_on_it(options: dict[str, Any]) -> None:
    figure = composed(**options)
    data = plots.drawn(lambda: figure)
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape == (round(figure.get_figheight() * 100), 1200)
    assert 0.5 < (pixels == 255).mean() < 0.98
    assert len(np.unique(pixels)) > 100


@pytest.mark.parametrize("options", [{}, {"kernel_sizes": (3, 5, 7)}, {"names": CROWD}, {"labels": ("W" * 300, "M" * 300)}])
def test_no_text_leaves_the_figure_or_its_panel(options: dict[str, Any]) -> None:
    figure = composed(**options)
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    axes_off = {
        id(label) for axes in figure.axes if not axes.axison for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
    }
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_text() and id(text) not in axes_off:
            box = text.get_window_extent()
            assert box.x0 >= 0, text
            assert box.y0 >= 0, text
            assert box.x1 <= figure.bbox.x1, text
            assert box.y1 <= figure.bbox.y1, text


@pytest.mark.parametrize("label", ["W" * 300, "mm " * 99, "i" * 300, "tiny"])
def test_labels_end_before_their_scores_and_titles_before_the_next(label: str) -> None:
    figure = composed(labels=(label, label))
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    ranking = axes_titled(figure, "Best 2 classes")
    name, score = (text.get_window_extent() for text in ranking.texts[:2])
    assert name.x0 == pytest.approx(ranking.bbox.x0)
    assert name.x1 < score.x0
    evidence = next(text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text().startswith("Evidence"))
    assert evidence.get_window_extent().x1 < ranking.bbox.x0


STRANGE = ("$x^2$ \\frac{a}{b}", "two\nlines\tand\x00more", "猫" * 40, "\ud800 half", "Кошка", "a" * 5000, "$", "<b>&amp;</b>")


@pytest.mark.parametrize("label", STRANGE)
@pytest.mark.parametrize("form", plots.FORMS)
def test_strangers_labels_are_drawn_as_plain_text(label: str, form: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw(PHOTOGRAPH, explanation(labels=(label, "dog")), MAKER, form)


def test_labels_are_one_short_line_and_what_the_font_lacks_is_told_by_its_index() -> None:
    def of(*labels: str) -> tuple[str, ...]:
        return names([Prediction(i, label, 0.1) for i, label in enumerate(labels)])

    assert of("two\nlines\tand\x00more") == ("two lines and more",)
    assert of("$x$") == ("$x$",)
    assert of("猫") == ("□ (class 0)",)
    assert of("crane", "crane") == ("crane (class 0)", "crane (class 1)")
    assert of("black and gold garden spider, Argiope") == ("black and gold garden spider…",)
    assert of("x" * 99) == ("x" * 29 + "…",)
    assert names([Prediction(1, "crane", 0.5, "n02012849"), Prediction(2, "crane", 0.1)])[0] == "crane (n02012849)"


def test_a_large_photograph_is_made_smaller_first() -> None:
    assert least_drawn(451, 300) == (451, 300)
    assert least_drawn(6000, 4000) == (1000, 667)
    assert least_drawn(60_000, 10) == (1000, 1)
    small = make.solid((40, 30))
    assert reduced(small) is small
    assert reduced(make.solid((2000, 1000))).size == (1000, 500)


@pytest.mark.parametrize("size", [(1, 1), (3000, 3), (3, 3000)])
def test_photographs_of_any_shape(size: tuple[int, int]) -> None:
    assert draw(make.solid(size), explanation(), MAKER).startswith(b"\x89PNG")


def test_drawing_is_the_same_each_time_from_several_threads_and_changes_nothing() -> None:
    before = dict(matplotlib.rcParams)
    once = draw(PHOTOGRAPH, explanation(), MAKER)
    start = threading.Barrier(3)

    def one(_: int) -> bytes:
        start.wait(20)
        return draw(PHOTOGRAPH, explanation(), MAKER)

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(one, range(3))) == {once}
    assert dict(matplotlib.rcParams) == before


def test_no_window_system_is_asked_for() -> None:
    code = (
        "import sys\n"
        "from model.figure import draw\n"
        "from tests.model.explanations import MAKER, explanation\n"
        "from PIL import Image\n"
        "draw(Image.new('RGB', (9, 9)), explanation(), MAKER)\n"
        "print([name for name in sys.modules if 'pyplot' in name or 'tkinter' in name])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FiguresUnavailable, match=r"pip install 'sknet-serve\[figures\]'"):
        draw(PHOTOGRAPH, explanation(), MAKER)
