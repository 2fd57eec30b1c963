"""Whether and when a request is sent again, by a clock that the tests turn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.client_errors import (
    BadImage,
    ClientError,
    DeadlinePassed,
    NotReady,
    Overloaded,
    ProblemError,
    ServerFault,
    Unreachable,
)
from app.client_retries import FIRST_S, LONGEST_S, PIECE_BYTES, Attempts, seconds_of

MOMENT = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
SAME_MOMENT = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def overloaded(retry_after_s: float | None = None) -> Overloaded:
    error = Overloaded("too much")
    error.retry_after_s = retry_after_s
    return error


def unsent() -> Unreachable:
    error = Unreachable("refused")
    error.sent = False
    return error


@given(st.integers(0, 10**9))
def test_a_number_is_seconds(seconds: int) -> None:
    assert seconds_of(str(seconds)) == seconds


@given(st.integers(10**6, 7 * 10**9), st.integers(-(10**6), 10**6))
def test_a_date_is_compared_with_the_answers_own(at: int, seconds: int) -> None:
    now = datetime.fromtimestamp(at, UTC)
    later = format_datetime(now + timedelta(seconds=seconds), usegmt=True)
    assert seconds_of(later, format_datetime(now, usegmt=True), now=lambda: 0.0) == max(0, seconds)


@pytest.mark.parametrize("text", SAME_MOMENT)
def test_every_form_of_a_date_is_read_and_without_another_the_own_clock_counts(text: str) -> None:
    assert seconds_of(text, None, now=lambda: MOMENT.timestamp() - 7) == 7
    assert seconds_of(text, "no date", now=lambda: MOMENT.timestamp() - 7) == 7


@given(st.text(max_size=40) | st.from_regex(r"[-+]?[0-9.,:eE /a-zA-Z]{0,40}", fullmatch=True))
def test_what_nobody_can_read_is_nothing_said(text: str) -> None:
    found = seconds_of(text)
    assert found is None or found >= 0


@pytest.mark.parametrize("text", [None, "", " ", "soon", "-1", "1.5", "٣", "+1", "0x10", "1 s"])
def test_what_is_no_number_of_seconds(text: str | None) -> None:
    assert seconds_of(text) is None


def test_too_many_digits_are_forever() -> None:
    assert seconds_of("9" * 5000) == float("inf")


def test_pauses_grow_are_random_and_end() -> None:
    most = Attempts(1e9, draw=lambda: 1.0)
    pauses = []
    for _ in range(8):
        most.begin()
        pauses.append(most.pause_after(overloaded()))
    assert pauses == [min(LONGEST_S, FIRST_S * 2**n) for n in range(8)]
    least = Attempts(1e9, draw=lambda: 0.0)
    least.begin()
    assert least.pause_after(overloaded()) == 0.0


@given(
    st.floats(0.2, 100), st.lists(st.none() | st.floats(0, 200, allow_nan=False), max_size=60), st.floats(0, 1, exclude_max=True)
)
def test_no_pause_is_shorter_than_told_nor_longer_than_the_deadline_leaves(
    timeout_s: float, told: list[float | None], draw: float
) -> None:
    clock = Clock()
    attempts = Attempts(timeout_s, clock=clock, draw=lambda: draw)
    for seconds in told:
        attempts.begin()
        left_s = attempts.left_s
        try:
            pause_s = attempts.pause_after(overloaded(seconds))
        except Overloaded:
            assert (seconds or 0) + FIRST_S >= left_s
            return
        assert (seconds or 0) <= pause_s < left_s
        clock.now += pause_s


def test_where_the_deadline_leaves_no_room_the_failure_itself_comes_at_once() -> None:
    attempts = Attempts(5.0)
    attempts.begin()
    failure = overloaded(6.0)
    with pytest.raises(Overloaded) as caught:
        attempts.pause_after(failure)
    assert caught.value is failure
    assert failure.tries == 1


@pytest.mark.parametrize("failure", [BadImage("x"), ServerFault("x"), DeadlinePassed("x"), ProblemError("x")])
def test_what_does_not_pass_is_not_tried_again(failure: ClientError) -> None:
    attempts = Attempts(5.0)
    attempts.begin()
    with pytest.raises(type(failure)):
        attempts.pause_after(failure)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_no_more_retries_than_allowed(most: int) -> None:
    attempts = Attempts(100.0, most=most, draw=lambda: 0.0)
    for _ in range(most):
        attempts.begin()
        attempts.pause_after(overloaded())
    attempts.begin()
    with pytest.raises(Overloaded):
        attempts.pause_after(overloaded())


def test_what_changes_something_is_sent_again_only_where_it_did_not_arrive() -> None:
    attempts = Attempts(100.0, idempotent=False)
    attempts.begin()
    assert attempts.pause_after(unsent()) >= 0
    for failure in (overloaded(), NotReady("x"), Unreachable("reset")):
        attempts.begin()
        with pytest.raises(type(failure)):
            attempts.pause_after(failure)


def test_what_may_take_long_is_not_tried_for_long() -> None:
    clock = Clock()
    attempts = Attempts(300.0, again_s=10.0, clock=clock)
    attempts.begin()
    attempts.pause_after(unsent())
    clock.now += 9.95
    attempts.begin()
    with pytest.raises(Unreachable):
        attempts.pause_after(unsent())
    assert attempts.left_s > 280


def test_a_deadline_that_passed_tells_what_failed_before() -> None:
    attempts = Attempts(5.0)
    attempts.begin()
    before = overloaded(1.0)
    attempts.pause_after(before)
    attempts.begin()
    with pytest.raises(DeadlinePassed) as caught:
        attempts.pause_after(DeadlinePassed("late"))
    assert caught.value.__cause__ is before
    assert caught.value.tries == 2


def test_time_left_falls_to_nothing_and_a_try_has_a_little() -> None:
    clock = Clock()
    attempts = Attempts(5.0, clock=clock)
    clock.now += 4
    assert (attempts.left_s, attempts.begin()) == (1.0, 1.0)
    clock.now += 4
    assert (attempts.left_s, attempts.begin()) == (0.0, 0.001)


def test_a_body_goes_in_pieces_until_the_deadline() -> None:
    clock = Clock()
    attempts = Attempts(5.0, clock=clock)
    data = bytes(range(256)) * 1000
    assert b"".join(attempts.bounded(data)) == data
    pieces = attempts.bounded(data)
    assert len(next(pieces)) == PIECE_BYTES
    clock.now += 6
    with pytest.raises(TimeoutError):
        next(pieces)
