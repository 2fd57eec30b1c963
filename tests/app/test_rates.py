"""Buckets of requests: how many at once, how many in time, how long to wait, and that strangers cannot fill the memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rates import Rates


class Clock:
    """A time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def passed(rates: Rates, who: str, tries: int) -> int:
    return sum(rates.take(who) is None for _ in range(tries))


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    rates = Rates(10, 5, clock=clock)
    assert passed(rates, "a", 20) == 5
    clock.now += 0.3
    assert passed(rates, "a", 20) == 3
    clock.now += 1000
    assert passed(rates, "a", 20) == 5  # no more is saved up


def test_each_has_a_bucket_of_its_own() -> None:
    rates = Rates(10, 2, clock=Clock())
    assert [passed(rates, who, 5) for who in ("a", "b", "a")] == [2, 2, 0]


@pytest.mark.parametrize(("rate", "wait_s"), [(10, 1), (1, 1), (0.5, 2), (0.3, 4), (0.01, 100)])
def test_who_waits_as_long_as_told_is_let_in(rate: float, wait_s: int) -> None:
    clock = Clock()
    rates = Rates(rate, 1, clock=clock)
    assert rates.take("a") is None
    refused = rates.take("a")
    assert refused is not None
    assert (refused.limit, refused.retry_after) == (rate, wait_s)
    clock.now += wait_s
    assert rates.take("a") is None


def test_refusals_cost_nothing_more() -> None:
    clock = Clock()
    rates = Rates(1, 1, clock=clock)
    assert passed(rates, "a", 100) == 1
    clock.now += 1
    assert passed(rates, "a", 100) == 1


def test_asking_whether_takes_nothing() -> None:
    rates = Rates(1, 1, clock=Clock())
    assert [rates.refusal("a") for _ in range(3)] == [None] * 3
    assert len(rates) == 0
    assert rates.take("a") is None
    assert rates.refusal("a") is not None


@given(
    rate=st.floats(0.01, 1000),
    burst=st.integers(1, 50),
    steps=st.lists(st.floats(0, 5), min_size=1, max_size=60),
)
def test_never_more_than_the_burst_and_the_rate_allow(rate: float, burst: int, steps: list[float]) -> None:
    clock = Clock()
    rates = Rates(rate, burst, clock=clock)
    taken = 0
    for step in steps:
        clock.now += step
        taken += passed(rates, "a", 3)
        assert taken <= burst + (clock.now - 1000) * rate + 1e-3


def test_no_number_of_addresses_grows_it() -> None:
    rates = Rates(1, 1, most=1000)
    for i in range(100_000):
        rates.take(str(i))
    assert len(rates) == 1000


def test_the_longest_untouched_is_forgotten_first() -> None:
    rates = Rates(0.001, 1, most=3, clock=Clock())
    for who in ("a", "b", "c"):
        assert rates.take(who) is None
    assert rates.take("a") is not None  # refused, and touched
    assert rates.take("d") is None
    assert rates.take("a") is not None
    assert rates.take("b") is None  # forgotten
