"""One picture of an explanation: the photograph, where the evidence lies, the ranking, and what each unit chose over depth.

Every number is drawn as it is: differences on an axis that is not fitted to them, scores on 0 to 1, and the evidence with its own
numbers beside its colours. This file knows nothing of networks, of processes or of HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from model import overlay, plots
from model.plots import GRAY, HATCHES, LINES, PALETTE, SMALL, TEXT, shown
from model.types import Explanation, Prediction, ScaleAttention, UnitAttention

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PHOTOGRAPH_PX = 1000  # a photograph need not be larger to be drawn
MOST_CLASSES = 5
LABEL_CHARACTERS = 30
GATE = "Kernel attention is a gate that depends on the input, not on a class, and it has no place in the image."
_PANELS_PX, _LINES_PX, _SHARES_PX, _FOOT_PX = 500, 430, 290, 90
_X = (0.025, 0.355, 0.69)  # left edges of the upper panels, in parts of the width
_PANEL_PX, _PANEL_TALL_PX, _PANEL_TOP_PX = 342, 315, 85


@dataclass(frozen=True)
class Maker:
    """Which network an explanation is of."""

    variant: str
    digest: str


class Sheet:
    """A figure whose parts are placed in pixels from its top."""

    def __init__(self, height_px: int) -> None:
        self.figure = plots.blank(height_px)
        self._height_px = height_px

    def place(self, left: float, top_px: float, width_px: float, height_px: float) -> tuple[float, float, float, float]:
        """A part, as the plotting library counts: `left` in parts of the width already."""
        return left, 1 - (top_px + height_px) / self._height_px, width_px / plots.WIDTH_PX, height_px / self._height_px


def draw(image: Image.Image, explanation: Explanation, maker: Maker, form: str = "png") -> bytes:
    """The figure as a file of one of `model.plots.FORMS`. The image is upright RGB, of any size with the original's shape.

    Raises:
        FiguresUnavailable: the plotting library is not installed.
    """
    return plots.drawn(lambda: compose(image, explanation, maker), form)


def least_drawn(width: int, height: int) -> tuple[int, int]:
    """The (width, height) that suffices to draw an image of this size."""
    ratio = min(1.0, PHOTOGRAPH_PX / max(width, height))
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def reduced(image: Image.Image) -> Image.Image:
    """The image, or a smaller one that a figure can do with."""
    size = least_drawn(*image.size)
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def compose(image: Image.Image, explanation: Explanation, maker: Maker) -> Figure:
    """The figure itself.

    Raises:
        FiguresUnavailable: as `draw`.
    """
    units = explanation.attention.units
    shares_px = _SHARES_PX if len(units[0].kernel_sizes) > 2 else 0
    sheet = Sheet(_PANELS_PX + _LINES_PX + shares_px + _FOOT_PX)
    figure, wide = sheet.figure, 0.91 * plots.WIDTH_PX
    picture = reduced(image)
    _photograph(sheet, picture, explanation)
    _evidence(sheet, picture, explanation)
    _ranking(figure.add_axes(sheet.place(_X[2], _PANEL_TOP_PX, _PANEL_PX, _PANEL_TALL_PX)), explanation.predictions)
    tall = 270 if plots.crowded(units) else 310
    _differences(plots.plain_axes(figure, sheet.place(0.075, _PANELS_PX + 60, wide, tall)), explanation)
    if shares_px:
        _shares(plots.plain_axes(figure, sheet.place(0.075, _PANELS_PX + _LINES_PX + 65, wide, 145)), units)
    style: dict[str, Any] = {"parse_math": False, "fontweight": "bold", "fontsize": TEXT + 3, "va": "top"}
    figure.text(*sheet.place(_X[0], 18, 0, 0)[:2], heading(explanation), **style)
    _foot(figure, explanation, maker)
    return figure


def heading(explanation: Explanation) -> str:
    """The first class and its score; the class of the map, where no class was good enough to be told."""
    first = (*explanation.predictions, explanation.activation.prediction)[0]
    return f"{names((first,))[0]}: score {first.score:.3f}"


def names(predictions: Sequence[Prediction]) -> tuple[str, ...]:
    """The classes' labels as they can be drawn; where two are alike, or the font lacks their script, with what tells them."""
    plain = [shown(prediction.label, LABEL_CHARACTERS) for prediction in predictions]
    return tuple(
        f"{name} ({prediction.wnid or f'class {prediction.index}'})" if plain.count(name) > 1 or plots.MISSING in name else name
        for name, prediction in zip(plain, predictions, strict=True)
    )


def _photograph(sheet: Sheet, picture: Image.Image, explanation: Explanation) -> None:
    from matplotlib.patches import Rectangle

    info = explanation.image
    axes, _ = _show(sheet, _X[0], picture, "What the network saw")
    note = f"of {info.width} \N{MULTIPLICATION SIGN} {info.height} pixels, at each scale"
    axes.text(0, -0.03, note, transform=axes.transAxes, va="top", fontsize=SMALL, color=GRAY)
    across, down = _scale(picture, explanation)
    for i, each in enumerate(explanation.scales):
        box = each.box
        left, right = (min(max(x * across, 0.0), picture.width) for x in (box.left, box.right))
        top, bottom = (min(max(y * down, 0.0), picture.height) for y in (box.top, box.bottom))
        corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)  # a pixel's centre is a whole number here
        frame: dict[str, Any] = {"fill": False, "clip_on": False}
        axes.add_patch(Rectangle(corner, *size, edgecolor="white", linewidth=5, **frame))
        axes.add_patch(Rectangle(corner, *size, edgecolor=PALETTE[i], linewidth=2.5, linestyle=LINES[i], **frame))


def _scale(picture: Image.Image, explanation: Explanation) -> tuple[float, float]:
    """Pixels of a picture for each of the original, across and down: the rounding of a long thin one's sizes tells them apart."""
    return picture.width / explanation.image.width, picture.height / explanation.image.height


def _evidence(sheet: Sheet, picture: Image.Image, explanation: Explanation) -> None:
    activation = explanation.activation
    painted = picture.copy()
    overlay.paint(painted, activation, scale=_scale(picture, explanation))
    title = f"Evidence for {names((activation.prediction,))[0]}"
    _, bottom_px = _show(sheet, _X[1], painted, plots.fitted(title, TEXT, _PANEL_PX, bold=True))
    values = np.asarray(activation.values)
    peak = overlay.strongest(activation) or 1.0
    low, high = (-peak if values.min() < 0 else 0.0), (peak if values.max() > 0 or not values.any() else 0.0)
    bar = sheet.figure.add_axes(sheet.place(_X[1], bottom_px + 14, _PANEL_PX, 15))
    parts = np.linspace(low, high, 256) / peak
    strength = overlay.OPACITY * np.abs(parts)[:, None]
    bar.imshow((strength * overlay.colours(parts) / 255 + 1 - strength)[None], aspect="auto", extent=(low, high, 0, 1))
    bar.set_yticks([])
    bar.tick_params(labelsize=SMALL)
    sign = "+" if activation.bias >= 0 else "\N{MINUS SIGN}"
    mean = activation.logit - activation.bias
    words = f"map: mean {mean:.2f} {sign} bias {abs(activation.bias):.2f} = logit {activation.logit:.2f}"
    bar.set_xlabel(words, fontsize=SMALL, color=GRAY, loc="left")


def _show(sheet: Sheet, left: float, picture: Image.Image, title: str) -> tuple[Axes, float]:
    """A picture as large as its panel allows; also where its lower edge lies, in pixels."""
    ratio = min(_PANEL_PX / picture.width, _PANEL_TALL_PX / picture.height)
    width_px, height_px = max(1.0, ratio * picture.width), max(1.0, ratio * picture.height)
    axes = sheet.figure.add_axes(sheet.place(left, _PANEL_TOP_PX, width_px, height_px))
    axes.imshow(np.asarray(picture), interpolation="antialiased", aspect="auto")
    axes.set_axis_off()
    plots.entitle(axes, title)
    return axes, _PANEL_TOP_PX + height_px


def _ranking(axes: Axes, predictions: Sequence[Prediction]) -> None:
    """A bar a class, its label above it."""
    kept = predictions[:MOST_CLASSES]
    plots.entitle(axes, {0: "No class is good enough", 1: "Best class"}.get(len(kept), f"Best {len(kept)} classes"))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(MOST_CLASSES - 0.5, -0.5)
    for i, (name, prediction) in enumerate(zip(names(kept), kept, strict=True)):
        axes.barh(i + 0.17, 1, 0.3, color="#EDEDED")
        axes.barh(i + 0.17, prediction.score, 0.3, color=PALETTE[0])
        label = plots.fitted(name, SMALL + 1, _PANEL_PX - 65)
        axes.text(0, i - 0.05, label, fontsize=SMALL + 1, va="bottom", parse_math=False)
        axes.text(1, i - 0.05, f"{prediction.score:.3f}", fontsize=SMALL + 1, va="bottom", ha="right")
    axes.text(0, -0.03, "score: softmax probability, 0 to 1", transform=axes.transAxes, va="top", fontsize=SMALL, color=GRAY)


def _differences(axes: Axes, explanation: Explanation) -> None:
    """Attention difference over depth, a line a scale."""
    units = explanation.attention.units
    plots.entitle(axes, "Attention difference over depth")
    lines = [differences_of(each) for each in explanation.scales]
    plots.differences_left(axes, max(abs(value) for line in lines for value in line), units[0].kernel_sizes)
    plots.units_below(axes, [unit.unit for unit in units])
    for i, (each, line) in enumerate(zip(explanation.scales, lines, strict=True)):
        axes.plot(range(len(line)), line, label=plots.scale_name(each.scale), **plots.line_style(i))
    plots.legend_above(axes)


def differences_of(each: ScaleAttention) -> list[float]:
    """What a line of the figure shows."""
    return [unit.attention_difference for unit in each.units]


def _shares(axes: Axes, units: Sequence[UnitAttention]) -> None:
    """For three kernels and more a difference of two does not say it all: every share, at the ordinary scale."""
    plots.entitle(axes, "Share of each kernel, and above it the mean size", raised_px=26)
    plots.units_below(axes, [unit.unit for unit in units])
    axes.set_ylim(0, 1)
    axes.set_ylabel("share", fontsize=SMALL)
    bottom = np.zeros(len(units))
    for m, size in enumerate(units[0].kernel_sizes):
        shares = np.array([unit.mean_attention[m] for unit in units])
        look: dict[str, Any] = {"color": PALETTE[m % len(PALETTE)], "hatch": HATCHES[m % len(HATCHES)], "edgecolor": "white"}
        look |= {"linewidth": 0.5, "label": f"{size}\N{MULTIPLICATION SIGN}{size}"}
        axes.bar(range(len(units)), shares, 0.8, bottom=bottom, **look)
        bottom += shares
    for i, unit in enumerate(units):
        axes.text(i, 1.02, f"{unit.mean_kernel_size:.2f}", ha="center", va="bottom", fontsize=SMALL - 1, color=GRAY)
    plots.legend_above(axes, raised=0.13)


def _foot(figure: Figure, explanation: Explanation, maker: Maker) -> None:
    attention = explanation.attention
    reads = "Comparable to the paper" if attention.comparable_to_paper else "NOT comparable to the paper"
    plots.foot(figure, (f"{shown(maker.variant, 40)}, weights {shown(maker.digest, 23)}", GATE, f"{reads}: {attention.reason}."))
