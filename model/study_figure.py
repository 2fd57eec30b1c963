"""One picture of a study, after figures 3 and 4 of the paper: the attention difference over depth, and class by class.

Differences are on axes that are not fitted to them, the same everywhere in the picture. This file knows nothing of networks or
of how the numbers came about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model import plots
from model.explain import SCALES
from model.plots import GRAY, PALETTE, SMALL, TEXT, shown
from model.study import ALL, Mean, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED_CLASSES = 40  # more than that have no room for their names
CROWDED_CLASSES = 10  # more than that have no room for their names beside each other
_DEPTH_PX, _CLASS_PX, _HEAD_PX, _FOOT_PX = 440, 250, 60, 90


def draw(result: Study, form: str = "png") -> bytes:
    """The figure as a file of one of `model.plots.FORMS`.

    Raises:
        FiguresUnavailable: the plotting library is not installed.
    """
    return plots.drawn(lambda: compose(result), form)


def chosen_units(result: Study) -> tuple[str, ...]:
    """The last unit of the first, of a middle and of the last stage: SK_2_3, SK_3_4 and SK_5_3 in the paper's network."""
    last = {unit.unit.rpartition("_")[0]: unit.unit for unit in result.of(ALL, SCALES[0])}
    stages = list(last.values())
    return tuple(stages[i] for i in sorted({0, (len(stages) - 1) // 2, len(stages) - 1}))


def compose(result: Study) -> Figure:
    """The figure itself.

    Raises:
        FiguresUnavailable: as `draw`.
    """
    units = chosen_units(result) if len(result.classes) > 1 else ()
    names_px = 130 if CROWDED_CLASSES < len(result.classes) <= NAMED_CLASSES else 30
    height_px = _HEAD_PX + _DEPTH_PX + len(units) * _CLASS_PX + names_px + _FOOT_PX
    figure = plots.blank(height_px)
    largest = max(abs(mean.mean_difference) for mean in result.means if mean.class_name == ALL or mean.unit in units)

    def axes(top_px: float, tall_px: float) -> Axes:
        return plots.plain_axes(figure, (0.075, 1 - (top_px + tall_px) / height_px, 0.91, tall_px / height_px))

    images = result.of(ALL, SCALES[0])[0].images
    title = f"{shown(result.variant, 40)}: {images} image{'s' * (images != 1)} of {len(result.classes)} class"
    title += "es" * (len(result.classes) != 1) + ("" if result.comparable_to_paper else "; NOT comparable to the paper")
    style: dict[str, Any] = {"fontweight": "bold", "fontsize": TEXT + 3, "va": "top", "parse_math": False}
    figure.text(0.025, 1 - 18 / height_px, title, **style)
    _over_depth(axes(_HEAD_PX + 50, 290), result, largest)
    for i, unit in enumerate(units):
        panel = axes(_HEAD_PX + _DEPTH_PX + i * _CLASS_PX + 35, _CLASS_PX - 60)
        _by_class(panel, result, unit, largest, last=i == len(units) - 1)
    comparable = "Comparable to the paper" if result.comparable_to_paper else "NOT comparable to the paper"
    bands = "Bands: one standard error of the mean over the images, either side."
    maker = f"{shown(result.variant, 40)}, weights {shown(result.digest, 23)}"
    plots.foot(figure, (maker, bands, f"{comparable}: {result.reason}."))
    return figure


def _over_depth(axes: Axes, result: Study, largest: float) -> None:
    plots.entitle(axes, "Mean attention difference")
    plots.differences_left(axes, largest, result.kernel_sizes)
    plots.units_below(axes, [mean.unit for mean in result.of(ALL, SCALES[0])])
    for i, scale in enumerate(SCALES):
        means = result.of(ALL, scale)
        places, values = np.arange(len(means)), np.array([mean.mean_difference for mean in means])
        error = np.array([standard_error(mean) for mean in means])
        axes.fill_between(places, values - error, values + error, color=PALETTE[i], alpha=0.2, linewidth=0)
        axes.plot(places, values, label=plots.scale_name(scale), **plots.line_style(i))
    plots.legend_above(axes)


def standard_error(mean: Mean) -> float:
    """Of a mean over images; 0 for a single one, of which nothing is known."""
    return float(mean.std / np.sqrt(mean.images - 1)) if mean.images > 1 else 0.0


def _by_class(axes: Axes, result: Study, unit: str, largest: float, *, last: bool) -> None:
    """The classes side by side at one unit, a mark for each scale."""
    plots.entitle(axes, f"{unit}, class by class")
    plots.differences_left(axes, largest, result.kernel_sizes, words=False)
    named = len(result.classes) <= NAMED_CLASSES
    axes.set_xlim(-0.5, len(result.classes) - 0.5)
    for i, scale in enumerate(SCALES):
        values = [next(mean.mean_difference for mean in result.of(name, scale) if mean.unit == unit) for name in result.classes]
        style = plots.line_style(i)
        if named:
            style |= {"linestyle": "none", "markersize": 7}  # between two classes there is nothing
        else:
            style |= {"marker": "", "linewidth": 1}
        beside = 0.16 * (i - 1) if named else 0.0  # or marks of one class would hide each other
        axes.plot(np.arange(len(values)) + beside, values, label=plots.scale_name(scale), **style)
    if named:
        crowded = len(result.classes) > CROWDED_CLASSES
        names = [shown(name, 14) for name in result.classes] if last else [""] * len(result.classes)
        axes.set_xticks(range(len(names)), names, rotation=90 if crowded else 0, fontsize=SMALL, parse_math=False)
        axes.xaxis.grid(True, color="#E5E5E5", linewidth=0.8)
    elif last:
        axes.set_xlabel("class, in the order of their names", fontsize=SMALL, color=GRAY)
