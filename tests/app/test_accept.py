"""Which form of an answer a client wants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.accept import accepts, preferred

OFFERED = ("application/json", "image/png")
JSON, PNG = OFFERED


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("text/html", JSON),
        ("image/png", PNG),
        ("IMAGE/PNG", PNG),
        ("image/*", PNG),
        ("image/png, */*;q=0.8", PNG),
        ("image/png;q=0.5, application/json;q=0.9", JSON),
        ("image/png;q=0.9, application/json;q=0.5", PNG),
        ("image/png, application/json", JSON),
        ("image/*;q=0.9, image/png;q=0.1, application/json;q=0.2", JSON),  # the more specific range counts
        ("application/json;q=0, */*;q=0.1", PNG),
        ("image/png;q=0", JSON),
        ("image/png; Q=1", PNG),
        ("image/png;q=many, application/json;q=0.1", JSON),
        ("image/png;q=7", PNG),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/png,*/*;q=0.8", PNG),
        (",,;;,q=1", JSON),
        (", " * 1000 + "image/png", JSON),  # nobody reads so many
    ],
)
def test_the_best_liked_form_is_chosen(accept: str, chosen: str) -> None:
    assert preferred(accept, OFFERED) == chosen


@pytest.mark.parametrize(
    ("accept", "does"),
    [
        ("", True), (" ", True), ("*/*", True), ("application/*", True), (JSON, True), ("text/csv, */*;q=0.1", True),
        ("text/csv", False), ("image/*", False), (f"{JSON};q=0", False), (f"*/*, {JSON};q=0", False), (",", False),
    ],
)  # fmt: skip
def test_whether_one_form_will_do(accept: str, does: bool) -> None:
    assert accepts(accept, JSON) is does


@given(st.text())
def test_no_header_breaks_it(accept: str) -> None:
    assert preferred(accept, OFFERED) in OFFERED
    assert accepts(accept, JSON) in (True, False)
