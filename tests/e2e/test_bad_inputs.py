"""No bad input is a 5xx, each says what was wrong, and the service answers after it."""

from __future__ import annotations

import httpx
import pytest

from tests.e2e.bad_inputs import CASES, Case, good

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, client: httpx.Client) -> None:
    answer = case.send(client)
    assert answer.status_code == case.status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    problem = answer.json()
    assert problem["type"] == f"/problems/{case.slug}"
    assert problem["status"] == case.status
    assert len(problem["detail"]) > 10
    assert {name: problem[name] for name in case.numbers} == case.numbers
    good(client)


def test_case_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 25
