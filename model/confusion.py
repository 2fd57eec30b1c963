"""Counts of which class was taken for which -> a picture: a row a class, a column for what came first, colours for shares.

Drawn without a window system and without the plotting library's global state; the library is imported when something is drawn.
"""

from __future__ import annotations

import importlib.util
import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model.errors import ModelError
from model.types import Label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS: tuple[str, ...] = ("png", "svg", "pdf")
COLOURS = "cividis"  # even in lightness, and the same to the colour-blind (Nunez, Anderton and Renslow, PLOS ONE 13, 2018)
NUMBERS = 20  # classes with a number in each cell, at most
NAMES = 60  # classes with names along the edges, at most
MOST = 2000  # classes of a picture
LONGEST = 24  # letters of a name
DPI = 120
_PLAIN: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def require(classes: int = 0) -> None:
    """Raises ModelError where nothing can be drawn: the plotting library is missing, or there are too many classes to be seen."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ModelError("figures need the extra that draws them: pip install 'sknet-serve[figures]'")
    if classes > MOST:
        raise ModelError(f"a confusion picture shows at most {MOST} classes, and {classes} have images")


def draw(classes: Sequence[int], counts: npt.NDArray[np.int64], labels: Sequence[Label], title: str, form: str) -> bytes:
    """The picture as a file of one of `FORMS`; the arguments are those of `figure`.

    Raises:
        ModelError: as `require`.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font does not have: the picture shows boxes for them
        figure(classes, counts, labels, title).savefig(buffer, format=form, dpi=DPI, facecolor="white", metadata=_PLAIN[form])
    return buffer.getvalue()


def figure(classes: Sequence[int], counts: npt.NDArray[np.int64], labels: Sequence[Label], title: str) -> Figure:
    """The picture, not drawn yet.

    Args:
        classes: indices of the N classes that have images. counts: (N, N + 1), as `model.evaluate.Evaluation.confusion`.
        labels: of all classes. title: its first line; may have more.

    Raises:
        ModelError: as `require`.
    """
    count = len(classes)
    require(count)
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    names = [_name(labels[index].name) for index in classes]
    if counts[:, -1].any():
        names.append("any other")
    else:
        counts = counts[:, :-1]
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = _side(count)
    result = Figure(figsize=(side + 2.9, side + 2.4), dpi=DPI, facecolor="white", layout="constrained")
    axes = result.add_subplot()
    # Colours go by the root of the share: mistakes of a few percent must show, and beside 95 % they would all look like none.
    picture = axes.imshow(shares, cmap=COLOURS, norm=PowerNorm(0.5, 0, 100), interpolation="nearest", aspect="equal")
    bar = result.colorbar(picture, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("% of the images in the row")
    bar.set_ticks([0, 1, 5, 10, 25, 50, 75, 100])
    axes.set_title(title, fontsize=13, loc="left", parse_math=False)
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
    return max(10.0, math.ceil(1.2 * count / DPI))


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


def _name(label: str) -> str:
    first = " ".join(label.partition(",")[0].split())
    return first if len(first) <= LONGEST else first[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
