"""`model.sknet` gives the numbers of the published networks: timm's, and those recorded from named weights."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.sknet import SKNet, record_attention, units
from tests.model.record_golden import RECORD, RECORDED, answers, golden_network
from tests.model.timm_parity import TIMM_VARIANTS, inputs, pair, timm_attention

Pair = tuple[nn.Module, SKNet]


@pytest.fixture(scope="module", params=TIMM_VARIANTS)
def networks(request: pytest.FixtureRequest) -> Pair:
    return pair(request.param)


def both(networks: Pair, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
    theirs, ours = networks
    with torch.no_grad(), timm_attention(theirs) as wanted, record_attention(ours) as found:
        return theirs(x), ours(x), wanted, found


def test_float32_logits_and_attention_equal_timm(networks: Pair) -> None:
    for net in networks:
        net.float()
    for x in inputs():
        want, got, wanted, found = both(networks, x)
        assert want.std() > 0.01  # a constant answer would equal anything
        limit = 1e-6 * float(want.abs().max()) + 1e-6
        assert float((got - want).abs().max()) < limit
        assert list(found) == list(wanted) == [path for _, path, _ in units(networks[1])]
        assert max(float((found[path] - wanted[path]).abs().max()) for path in wanted) < 1e-6


def test_float64_logits_and_attention_equal_timm(networks: Pair) -> None:
    for net in networks:
        net.double()
    for x in inputs():
        want, got, wanted, found = both(networks, x.double())
        assert want.dtype == got.dtype == torch.float64
        assert float((got - want).abs().max()) < 1e-9
        assert list(found) == list(wanted)
        assert max(float((found[path] - wanted[path]).abs().max()) for path in wanted) < 1e-9


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(RECORD.read_text())
    return loaded


def test_the_record_holds_one_of_each_kind(record: dict[str, Any]) -> None:
    assert tuple(record) == RECORDED
    assert all(len(answer["logits"]) == 8 for answer in record.values())


@pytest.mark.parametrize("name", RECORDED)
def test_named_weights_give_the_recorded_numbers(name: str, record: dict[str, Any]) -> None:
    net = golden_network(name)
    found, want = answers(net), record[name]
    assert found["logits"] == pytest.approx(want["logits"], abs=1e-6)
    assert list(found["attention_difference"]) == [path for _, path, _ in units(net)]
    assert found["attention_difference"] == pytest.approx(want["attention_difference"], abs=1e-6)
