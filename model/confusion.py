"""Counts of which class was taken for which -> a picture: a row a class, a column for what came first, colours for shares.

Drawn without a window system and without the plotting library's global state; the library is imported when something is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model import plots
from model.errors import ModelError
from model.types import Label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "cividis"  # even in lightness, and the same to the colour-blind (Nunez, Anderton and Renslow, PLOS ONE 13, 2018)
NUMBERS = 20  # classes with a number in each cell, at most
NAMES = 60  # classes with names along the edges, at most
MOST = 2000  # classes of a picture
LONGEST = 24  # letters of a name
TITLE = 80  # letters of a line of the title


def draw(classes: Sequence[int], counts: npt.NDArray[np.int64], labels: Sequence[Label], title: str, form: str) -> bytes:
    """The picture as a file of one of `model.plots.FORMS`; the other arguments, and what is raised, are those of `figure`."""
    return plots.drawn(lambda: figure(classes, counts, labels, title), form)


def figure(classes: Sequence[int], counts: npt.NDArray[np.int64], labels: Sequence[Label], title: str) -> Figure:
    """The picture, not drawn yet.

    Args:
        classes: indices of the N classes that have images. counts: (N, N + 1), as `model.evaluate.Evaluation.confusion`.
        labels: of all classes. title: lines over it.

    Raises:
        FiguresUnavailable: the plotting library is not installed.
        ModelError: more classes than can be seen.
    """
    count = len(classes)
    if count > MOST:
        raise ModelError(f"a confusion picture shows at most {MOST} classes; {count} have images")
    result = plots.blank(round(plots.DPI * (_side(count) + 2.4)), round(plots.DPI * (_side(count) + 2.9)))
    result.set_layout_engine("constrained")
    from matplotlib.colors import PowerNorm

    names = [plots.shown(labels[index].name.partition(",")[0], LONGEST) for index in classes]
    if counts[:, -1].any():
        names.append("any other")
    else:
        counts = counts[:, :-1]
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = result.add_subplot()
    # Colours go by the root of the share: mistakes of a few percent must show, and beside 95 % they would all look like none.
    picture = axes.imshow(shares, cmap=COLOURS, norm=PowerNorm(0.5, 0, 100), interpolation="nearest", aspect="equal")
    bar = result.colorbar(picture, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("% of the images in the row")
    bar.set_ticks([0, 1, 5, 10, 25, 50, 75, 100])
    lines = (plots.shown(line, TITLE) for line in title.splitlines())
    axes.set_title("\n".join(lines), fontsize=13, loc="left", parse_math=False)
    axes.set_ylabel("class of the image")
    axes.set_xlabel("class that came first")
    _ticks(axes, classes, names)
    if len(names) > count:
        axes.axvline(count - 0.5, color="white", linewidth=max(0.8, 3 - count / 10))
    if count <= NUMBERS:
        _numbers(axes, shares)
    return result


def _side(count: int) -> float:
    """Inches of the square: enough for numbers, for names, or for a pixel a class."""
    if count <= NUMBERS:
        return max(3.0, 0.55 * count)
    if count <= NAMES:
        return 0.2 * count
    return max(10.0, math.ceil(1.2 * count / plots.DPI))


def _ticks(axes: Axes, classes: Sequence[int], names: Sequence[str]) -> None:
    count = len(classes)
    if count <= NAMES:
        size = 10 if count <= NUMBERS else 7
        axes.set_xticks(range(len(names)), names, rotation=90 if count > NUMBERS else 45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), names[:count])
        axes.tick_params(labelsize=size)
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            text.set_parse_math(False)
        return
    step = next(step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if count <= 10 * step)
    places = range(0, count, step)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(list(places), [str(classes[place]) for place in places])
    axes.set_ylabel("class of the image, by index")
    axes.set_xlabel("class that came first, by index")


def _numbers(axes: Axes, shares: npt.NDArray[np.float64]) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share:
            text = f"{share:.0f}" if share >= 0.95 else f"{share:.1f}"
            colour = "black" if share > 30 else "white"  # where the colours are as bright as dark
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9, gid=f"{row},{column}")
