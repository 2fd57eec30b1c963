"""The fuzzers' checks without a fuzzer: over their seeds, over damaged seeds, and each sees what it is there for."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.__main__ import TARGETS, Slow, timed


def target(name: str) -> ModuleType:
    return importlib.import_module(f"tests.fuzz.fuzz_{name}")
