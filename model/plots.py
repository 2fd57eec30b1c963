"""What figures share: the plotting library, a blank figure, colours, and texts of strangers made fit to be drawn.

The library's own style holds, whatever the user's says, and nothing of its state is changed. No window system is asked for, no
text is read as a formula, nothing is written into the home folder, and several threads may draw at once. This file knows no
figure.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
import textwrap
import threading
import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from model.errors import FiguresUnavailable
from model.plot_folder import PlotFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
WIDTH_PX = 1200
TEXT, SMALL = 14.0, 12.0  # points: at two thirds of the size 13 and 11 pixels, which can be read
FORMS: tuple[str, ...] = ("png", "svg", "pdf")
MISSING = "\N{WHITE SQUARE}"  # for a character that the font does not have
# Okabe and Ito, "Color universal design" (2008): told apart with every common colour blindness. Dark ones first.
PALETTE: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS: tuple[str, ...] = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[str, ...] = ("-", "--", ":", "-.")
HATCHES: tuple[str, ...] = ("", "///", "...", "\\\\\\", "xx", "++", "oo", "--")
GRAY = "#595959"  # of what is said by the way: 7 to 1 on white
_PLAIN: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
_STATE = threading.RLock()  # the library has one style for all threads


def require() -> None:
    """Raises:
    FiguresUnavailable: the plotting library is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise FiguresUnavailable


def blank(height_px: int, width_px: int = WIDTH_PX) -> Figure:
    """A white figure of so many pixels as a PNG.

    Raises:
        FiguresUnavailable: as `require`.
    """
    require()
    _load()
    from matplotlib.figure import Figure

    return Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI, facecolor="white")


def drawn(compose: Callable[[], Figure], form: str = "png") -> bytes:
    """What `compose` makes as a file of one of `FORMS`, the same bytes each time; one thread at a time.

    Raises:
        FiguresUnavailable: as `require`.
    """
    require()
    _load()
    from matplotlib import rc_context, rcdefaults

    file = io.BytesIO()
    with _STATE, rc_context():
        rcdefaults()
        compose().savefig(file, format=form, dpi=DPI, facecolor="white", metadata=_PLAIN[form])
    return file.getvalue()


def _load() -> None:
    """Import the library with a folder of its own, which it needs at that time alone; one that the user set wins."""
    with _STATE:
        if "matplotlib.font_manager" in sys.modules:
            return
        folder = PlotFolder()
        try:
            os.environ.setdefault("MPLCONFIGDIR", str(folder.path))
            importlib.import_module("matplotlib").get_configdir()  # asks once, and makes it
            importlib.import_module("matplotlib.font_manager")  # makes its list of fonts
        finally:
            folder.remove()


def shown(text: str, most: int) -> str:
    """A text as it can be drawn: one line, at most so many characters, `MISSING` for what the font does not have."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    line = " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text).split())
    if len(line) > most:
        words = line[:most].rpartition(" ")[0]  # between words, where that does not cost too much
        line = (words if len(words) > most // 2 else line[: most - 1]).rstrip(" ,;") + "\N{HORIZONTAL ELLIPSIS}"
    return "".join(c if font.get_char_index(ord(c)) else MISSING for c in line)


def fitted(text: str, points: float, most_px: float, *, bold: bool = False) -> str:
    """A text that `shown` made, cut where it would be wider than that."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(weight="bold" if bold else "normal")))
    font.set_size(points, DPI)
    most = len(text)
    while text:
        font.set_text(text)
        if font.get_width_height()[0] / 64 <= most_px:  # in 64ths of a pixel
            break
        most -= 1
        text = shown(text, most)
    return text


def plain_axes(figure: Figure, place: tuple[float, float, float, float]) -> Axes:
    """Axes at (left, bottom, width, height) in parts of the figure, with no frame but left and below."""
    axes = figure.add_axes(place)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    return axes


def entitle(axes: Axes, text: str, *, raised_px: float = 8) -> None:
    """The title of a part, from its left edge."""
    axes.set_title(text, loc="left", fontsize=TEXT, fontweight="bold", pad=raised_px * 72 / DPI, parse_math=False)


def crowded(units: Sequence[object]) -> bool:
    """Whether the units' names have no room beside each other."""
    return len(units) > 12


def units_below(axes: Axes, units: Sequence[str]) -> None:
    """The horizontal axis of depth: a place for each unit by its paper's name, and a line between stages."""
    axes.set_xlim(-0.5, len(units) - 0.5)
    axes.set_xticks(range(len(units)), units, rotation=90 if crowded(units) else 0, fontsize=SMALL)
    for i, (before, after) in enumerate(pairwise(units)):
        if before.rpartition("_")[0] != after.rpartition("_")[0]:
            axes.axvline(i + 0.5, color="#BBBBBB", linewidth=0.8, zorder=0)


def difference_limit(largest: float) -> float:
    """Where the axis of attention differences ends, either side of 0: values of 0.02 must not look like values of 0.2."""
    return next(limit for limit in (0.25, 0.5, 1.0) if largest <= limit or limit == 1.0)


def differences_left(axes: Axes, largest: float, kernel_sizes: Sequence[int], *, words: bool = True) -> None:
    """The vertical axis of attention differences: even on both sides of 0, and never fitted to the values."""
    limit = difference_limit(largest)
    small, large = (f"{size}\N{MULTIPLICATION SIGN}{size}" for size in (kernel_sizes[0], kernel_sizes[-1]))
    axes.set_ylim(-limit, limit)
    axes.axhline(0, color="black", linewidth=1.0, zorder=1)
    axes.yaxis.grid(True, color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    if words:
        axes.set_ylabel(f"share of {large} less {small}", fontsize=SMALL)
        for y, side, kernel in ((0.985, "top", large), (0.015, "bottom", small)):
            style: dict[str, Any] = {"fontsize": SMALL, "color": GRAY, "transform": axes.transAxes}
            axes.text(0.995, y, f"{kernel} preferred", ha="right", va=side, **style)


def line_style(i: int) -> dict[str, Any]:
    """How the i-th line of several is drawn. The later ones have smaller marks: none hides one that lies beneath it."""
    look: dict[str, Any] = {"color": PALETTE[i % len(PALETTE)], "linestyle": LINES[i % len(LINES)], "linewidth": 2}
    return {**look, "marker": MARKERS[i % len(MARKERS)], "markersize": max(4, 10 - 2.5 * i)}


def scale_name(scale: float) -> str:
    """What a line of a scale is called."""
    return "as sent" if scale == 1 else f"centre enlarged {scale:.1f}\N{MULTIPLICATION SIGN}"


def legend_above(axes: Axes, *, raised: float = 0.0) -> None:
    """A legend in one line, above the axes at their right."""
    look: dict[str, Any] = {"fontsize": SMALL, "frameon": False, "handlelength": 3, "columnspacing": 1.2, "borderaxespad": 0.2}
    count = len(axes.get_legend_handles_labels()[1])
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0 + raised), ncols=count, **look)


def foot(figure: Figure, sentences: Sequence[str], *, most: int = 150) -> None:
    """What must be said of a figure, small, at its lower edge."""
    text = "\n".join(line for sentence in sentences for line in textwrap.wrap(shown(sentence, 3 * most), most))
    figure.text(0.025, 10 / (figure.get_figheight() * DPI), text, fontsize=SMALL - 1, color=GRAY, va="bottom", parse_math=False)
