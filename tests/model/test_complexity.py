"""`model.complexity`: sizes and costs, against the published table and against counts made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.complexity import count_macs, count_parameters
from model.registry import VARIANTS
from model.sknet import SKBasicBlock, SKNet, build
from tests.model.test_registry import FACTS


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_costs_what_the_table_says(name: str) -> None:
    with torch.device("meta"):
        net = build(name)
    assert round(count_macs(net, (224, 224)) / 1e9, 6) == FACTS[name][1]


def test_macs_of_a_small_network_counted_by_hand() -> None:
    net = SKNet(SKBasicBlock, [1], num_classes=5, channels=(8,), stem_type="small", stem_width=8, rd_divisor=4)
    stem = 8 * 3 * 9 * (6 * 10)
    branches = 2 * 8 * 8 * 9 * (6 * 10)
    attention = 8 * 4 + 4 * 16  # fc_reduce and fc_select on a 1x1 map
    second = 8 * 8 * 9 * (6 * 10)
    assert count_macs(net, (6, 10)) == stem + branches + attention + second + 8 * 5


def test_groups_stride_and_bias() -> None:
    net = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    assert count_macs(net, (9, 7)) == 8 * 2 * 9 * (5 * 4) + 8 * 3
    assert count_parameters(net) == 8 * 2 * 9 + 8 + 8 * 3 + 3


def test_running_statistics_are_no_parameters() -> None:
    assert count_parameters(nn.BatchNorm2d(7)) == 14


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training: bool) -> None:
    net = SKNet(SKBasicBlock, [1], num_classes=2, channels=(8,), stem_width=8, rd_divisor=4).train(training).double()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    count_macs(net, (32, 32))
    assert all(module.training is training for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())
    after = net.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_network_that_takes_no_images_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear does not begin with a convolution"):
        count_macs(nn.Linear(3, 3), (8, 8))
    with pytest.raises(ValueError, match="Identity does not begin with a convolution"):
        count_macs(nn.Identity(), (8, 8))
