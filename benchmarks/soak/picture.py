"""Curves over time as an SVG, by hand: axes with units, a legend, readable on light and on dark ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, PANEL, LEFT, RIGHT, TOP, BETWEEN = 900, 220, 70, 150, 40, 60
COLOURS = ("#2f81f7", "#d9822b", "#2ea043")
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}.grid{stroke:#8b949e;stroke-opacity:.35}"
    ".axis{stroke:#656d76}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis{stroke:#9198a1}}"
)
MOST_POINTS = 900


@dataclass(frozen=True)
class Panel:
    """One diagram: lines over the same minutes, by name, on one axis."""

    title: str
    unit: str
    lines: dict[str, Sequence[float]]


def picture(title: str, minutes: Sequence[float], panels: Sequence[Panel]) -> str:
    """The panels one below the other.

    Args:
        minutes: of each value, rising.
    """
    height = TOP + len(panels) * (PANEL + BETWEEN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f'<title>{escape(title)}</title><style>{STYLE}</style><text class="title" x="{LEFT}" y="20">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, minutes, TOP + number * (PANEL + BETWEEN) + 20)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, minutes: Sequence[float], top: float) -> list[str]:
    right, bottom = WIDTH - RIGHT, top + PANEL - 20
    most_y = _round_up(max(max(values) for values in panel.lines.values()))
    most_x = max(minutes[-1], 1e-9)

    def x(value: float) -> float:
        return LEFT + value / most_x * (right - LEFT)

    def y(value: float) -> float:
        return bottom - value / most_y * (bottom - top)

    parts = [f'<text x="{LEFT}" y="{top - 8}">{escape(panel.title)} ({escape(panel.unit)})</text>']
    for step in range(5):
        value = most_y * step / 4
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for step in range(7):
        value = most_x * step / 6
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{value:.2g}</text>')
    parts.append(f'<text x="{right + 24}" y="{bottom + 18}">minutes</text>')
    parts.append(f'<path class="axis" fill="none" d="M{LEFT} {top}V{bottom}H{right}"/>')
    every = max(1, len(minutes) // MOST_POINTS)
    for number, (name, values) in enumerate(panel.lines.items()):
        points = " ".join(f"{x(m):.1f},{y(v):.1f}" for m, v in list(zip(minutes, values, strict=True))[::every])
        colour, at = COLOURS[number % len(COLOURS)], top + 14 + number * 20
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{points}"/>')
        parts.append(
            f'<line stroke="{colour}" stroke-width="3" x1="{right + 12}" x2="{right + 32}" y1="{at - 4}" y2="{at - 4}"/>'
        )
        parts.append(f'<text x="{right + 38}" y="{at}">{escape(name)}</text>')
    return parts


def _round_up(value: float) -> float:
    """To 1, 2, 2.5, 4, 5, 8 or 10 times a power of ten, which divide well by four."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 4, 5, 8, 10) if step * power >= value * 0.9999)
