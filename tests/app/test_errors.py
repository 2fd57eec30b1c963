"""The errors of this layer carry their numbers, and texts that are fit to show."""

from __future__ import annotations

import re

import pytest

from app import errors
from app.errors import AppError

EVERY: list[AppError] = [
    errors.MalformedRequest("the body is empty"),
    errors.InvalidParameter("top_k", 9, "1 to 7", 7),
    errors.InstanceUnusable(1, "the image is empty"),
    errors.BodyTooLarge(100, 101),
    errors.BodyTimeout(2.5),
    errors.UnsupportedMedia("text/plain", ["image/*"]),
    errors.NotAcceptable("no picture can be drawn here", ["application/json"]),
    errors.Unauthorised(given=False),
    errors.ScopeForbidden("not with this key", "admin"),
    errors.ReferenceForbidden("/etc/passwd", ["bundled names"]),
    errors.CheckpointRefused("the file is damaged"),
    errors.SourceForbidden("not from there"),
    errors.SourceUnreachable("nobody answered"),
    errors.RouteNotFound("/a\nb"),
    errors.ModelNotFound("cat", ["default"]),
    errors.Overloaded("images at once", 5, 3),
    errors.RateLimited(2.5, 1),
    errors.NotReady(["loading"]),
    errors.DeadlinePassed(0.5),
]


@pytest.mark.parametrize(
    ("limit_s", "passed", "body"),
    [
        (10, "the deadline of 10 seconds passed", "the body did not arrive within 10 seconds"),
        (1234.5, "the deadline of 1234.5 seconds passed", "the body did not arrive within 1234.5 seconds"),
        (0.0993421, "the deadline of 0.0993 seconds passed", "the body did not arrive within 0.0993 seconds"),
        (0.0001, "the deadline of 0.0001 seconds passed", "the body did not arrive within 0.0001 seconds"),
        (0.00003, "the deadline passed", "the deadline passed before the body arrived"),
        (0, "the deadline passed", "the deadline passed before the body arrived"),
    ],
)
def test_times_are_told_as_people_write_them(limit_s: float, passed: str, body: str) -> None:
    assert str(errors.DeadlinePassed(limit_s)) == passed
    assert str(errors.BodyTimeout(limit_s)) == body
    assert errors.BodyTimeout(limit_s).limit == errors.DeadlinePassed(limit_s).limit == limit_s


def test_each_kind_is_shown_here_and_drawn_in_the_docstring() -> None:
    assert {type(error) for error in EVERY} == set(AppError.__subclasses__()) - {AppError}
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert drawn == [type(error).__name__ for error in EVERY]


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_texts_are_one_line_and_status_codes_are_not_known(error: AppError) -> None:
    assert str(error)
    assert "\n" not in str(error)
    assert not any("status" in name for name in vars(error))


def test_numbers_are_attributes_and_in_the_text() -> None:
    error = errors.InvalidParameter("top_k", 9, "1 to 7", 7)
    assert (error.name, error.value, error.limit, str(error)) == ("top_k", 9, 7, "top_k is '9': it may be 1 to 7")
    large = errors.BodyTooLarge(100, 101)
    assert (large.limit, large.value) == (100, 101)
    assert "101" in str(large)
    assert "100" in str(large)
    full = errors.Overloaded("images at once", 5, 3)
    assert (full.limit, full.retry_after) == (5, 3)
    assert errors.NotReady(["a", "b"]).reasons == ("a", "b")
    assert str(errors.DeadlinePassed(0.5)) == "the deadline of 0.5 seconds passed"


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidParameter("X", "y" * 10_000, "a number"),
        errors.UnsupportedMedia("y" * 10_000, ["image/*"]),
        errors.ModelNotFound("y" * 10_000, ["default"]),
        errors.ReferenceForbidden("y" * 10_000, ["bundled names"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_strangers_sent_is_cut_short(error: errors.InvalidParameter) -> None:
    assert len(str(error)) < 200
    assert len(str(error.value)) == 100
