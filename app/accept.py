"""Which of the forms that can be had a client wants: the header `Accept` (RFC 9110, section 12.5.1). Knows nothing of routes."""

from __future__ import annotations

from collections.abc import Sequence

MOST_RANGES = 100  # of one header; browsers send fewer than ten


def preferred(accept: str, offered: Sequence[str]) -> str:
    """The offered media type that the header likes best; the first of several alike, and where it names none or is no list."""
    ranges = [_range(text) for text in accept.split(",")[:MOST_RANGES]]
    return max(offered, key=lambda media: _quality(media, ranges))  # the first of the best


def accepts(accept: str, media: str) -> bool:
    """Whether a media type will do. An empty header says nothing, so anything does."""
    return not accept.strip() or _quality(media, [_range(text) for text in accept.split(",")[:MOST_RANGES]]) > 0


def _range(text: str) -> tuple[str, float]:
    """(media range, quality 0..1)"""
    media, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = min(max(float(value), 0.0), 1.0)
            except ValueError:
                quality = 0.0
    return media, quality


def _quality(media: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Of the most specific range that covers it."""
    for pattern in (media, media.partition("/")[0] + "/*", "*/*"):
        for name, quality in ranges:
            if name == pattern:
                return quality
    return 0.0
