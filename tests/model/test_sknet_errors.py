"""`model.sknet` refuses arguments that make no network, and says what was given and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from model.errors import ArchitectureError, ModelError
from model.sknet import BLOCKS, SKBasicBlock, SKBottleneck, SKNet, build

WHOLE = "whole number, 1 or more"
NO_WHOLES: tuple[Any, ...] = (0, -1, 1.5, 2.0, "10", None, True, [3])


def refused(given: str, allowed: str, **arguments: Any) -> None:
    arguments = {"block": SKBottleneck, "layers": [1, 1], **arguments}
    with pytest.raises(ArchitectureError) as caught:
        SKNet(**arguments)
    assert given in str(caught.value)
    assert allowed in str(caught.value)
    assert isinstance(caught.value, ModelError)


@pytest.mark.parametrize("bad", NO_WHOLES, ids=repr)
@pytest.mark.parametrize("name", ["num_classes", "base_width", "cardinality", "in_channels", "stem_width", "rd_divisor"])
def test_what_must_be_a_whole_number(name: str, bad: Any) -> None:
    refused(f"{name}={bad!r}", WHOLE, **{name: bad})


@pytest.mark.parametrize("bad", NO_WHOLES, ids=repr)
def test_the_small_stems_numbers(bad: Any) -> None:
    refused(f"stem_kernel_size={bad!r}", WHOLE, stem_type="small", stem_kernel_size=bad)
    refused(f"stem_stride={bad!r}", WHOLE, stem_type="small", stem_stride=bad)


@pytest.mark.parametrize("bad", [[], (), None, 3, True, "2222", {2: 2}], ids=repr)
def test_layers_that_are_no_list(bad: Any) -> None:
    refused(f"layers={bad!r}", "number of blocks of each stage", layers=bad)


@pytest.mark.parametrize("bad", NO_WHOLES, ids=repr)
def test_layers_with_something_else_in_them(bad: Any) -> None:
    refused(f"layers={[2, bad]!r}", WHOLE, layers=[2, bad])


@pytest.mark.parametrize("bad", [None, 64, "64,128", [], ()], ids=repr)
def test_channels_that_are_no_list(bad: Any) -> None:
    refused(f"channels={bad!r}", "width of each stage", channels=bad)


@pytest.mark.parametrize("bad", NO_WHOLES, ids=repr)
def test_channels_with_something_else_in_them(bad: Any) -> None:
    refused(f"channels={(64, bad)!r}", WHOLE, channels=(64, bad))


def test_fewer_channels_than_stages() -> None:
    refused("channels=(64, 128) has 2 widths for 3 stages", "3 stages", layers=[1, 1, 1], channels=(64, 128))
    refused("has 4 widths for 5 stages", "5 stages", layers=[1] * 5)


@pytest.mark.parametrize("bad", [[3], [], None, 5, "35"], ids=repr)
def test_fewer_than_two_kernels(bad: Any) -> None:
    refused(f"kernel_sizes={bad!r}", "two or more kernel sizes", kernel_sizes=bad)


@pytest.mark.parametrize("bad", [4, 1, 0, -3, 3.0, "3", None, True], ids=repr)
def test_even_or_small_kernels(bad: Any) -> None:
    refused(f"has {bad!r}", "odd number, 3 or more", kernel_sizes=[3, bad])


@pytest.mark.parametrize("bad", ["DEEP", "tiered", "", 0, False, []], ids=repr)
def test_stems_there_are_not(bad: Any) -> None:
    refused(f"stem_type={bad!r}", "None, 'deep' and 'small'", stem_type=bad)


@pytest.mark.parametrize("stem", [None, "deep"])
def test_small_stem_arguments_elsewhere(stem: str | None) -> None:
    refused("stem_kernel_size and stem_stride", "stem_type='small' only", stem_type=stem, stem_kernel_size=5)
    refused("stem_kernel_size and stem_stride", "stem_type='small' only", stem_type=stem, stem_stride=2)


def test_an_even_stem_kernel() -> None:
    refused("stem_kernel_size=4", "odd number", stem_type="small", stem_kernel_size=4)


@pytest.mark.parametrize("bad", ["no", 0, 1, None], ids=repr)
@pytest.mark.parametrize("name", ["avg_down", "split_input", "keep_3x3"])
def test_what_must_be_true_or_false(name: str, bad: Any) -> None:
    refused(f"{name}={bad!r}", "True and False", **{name: bad})


@pytest.mark.parametrize("bad", [0, -0.5, 1.01, float("nan"), float("inf"), "1/16", None, True], ids=repr)
def test_ratios_out_of_range(bad: Any) -> None:
    refused(f"rd_ratio={bad!r}", "above 0 and at most 1", rd_ratio=bad)


def test_an_unknown_argument_is_answered_with_the_known_ones() -> None:
    for known in ("kernel_sizes", "split_input", "rd_ratio", "keep_3x3", "avg_down", "channels", "stem_type", "in_channels"):
        refused("unknown argument kernel_size:", known, kernel_size=[3, 5])
    refused("unknown arguments dropout, zero_init:", "allowed are", zero_init=True, dropout=0.1)


def test_channels_that_do_not_divide_among_the_branches() -> None:
    refused("64 input channels and 3 kernel sizes", "divide evenly", split_input=True, kernel_sizes=[3, 5, 7])


def test_groups_that_do_not_divide_a_branch() -> None:
    refused("8 groups", "4 input and 8 output", split_input=True, cardinality=8, base_width=1, channels=(64, 64))


def test_a_base_width_that_leaves_nothing() -> None:
    refused("base_width=1", "floor(32 * 1 / 64) must be 1 or more", base_width=1, channels=(32, 64))


@pytest.mark.parametrize("more", [{"cardinality": 32}, {"base_width": 4}, {"cardinality": 32, "base_width": 4}], ids=repr)
def test_the_basic_block_has_one_width(more: dict[str, int]) -> None:
    given = f"cardinality={more.get('cardinality', 1)}, base_width={more.get('base_width', 64)}"
    refused(given, "cardinality=1 and base_width=64 only", block=SKBasicBlock, **more)


@pytest.mark.parametrize(
    "bad", [None, "basic", 3, int, nn.ReLU, SKBasicBlock(8, 8)], ids=lambda b: getattr(b, "__name__", str(b)[:6])
)
def test_what_is_no_block_class(bad: Any) -> None:
    refused("block=", "SKBasicBlock, SKBottleneck or another block class", block=bad)


def test_build_takes_the_blocks_by_name() -> None:
    assert list(BLOCKS) == ["basic", "bottleneck"]
    with pytest.raises(ArchitectureError, match="block='plain': allowed are basic, bottleneck"):
        build("skresnet18", block="plain")
    with pytest.raises(ArchitectureError, match=r"unknown argument drop_rate: allowed are .*kernel_sizes"):
        build("skresnet18", drop_rate=0.5)
    with pytest.raises(ArchitectureError, match="64 input channels and 3 kernel sizes"):
        build("skresnet18", kernel_sizes=[3, 5, 7])


def test_training_with_a_batch_of_one_is_refused_clearly() -> None:
    net = SKNet(SKBasicBlock, [1], num_classes=2, channels=(8,), stem_width=8).train()
    with pytest.raises(ArchitectureError, match="cannot be trained with a batch of one"):
        net(torch.zeros(1, 3, 32, 32))
    assert net.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
