"""Broken image files of every supported format, made the same each time; no service is needed."""

from __future__ import annotations

from tests.corpus.sources import Source, sources

__all__ = ["Source", "sources"]
