"""`model.sknet`: the documented constructor, the published names of tensors and units, and properties of any network."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.layers import SelectiveKernel
from model.sknet import SKBasicBlock, SKBlock, SKBottleneck, SKNet, build, record_attention, units

SMALL: dict[str, Any] = {"num_classes": 3, "channels": (8, 16), "stem_width": 8, "rd_divisor": 4}


def small(block: type[SKBlock] = SKBasicBlock, layers: tuple[int, ...] = (1, 1), **more: Any) -> SKNet:
    torch.manual_seed(0)
    return SKNet(block, layers, **{**SMALL, **more})


def on_meta(name: str, **overrides: Any) -> SKNet:
    with torch.device("meta"):
        return build(name, **overrides)


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def test_the_signature_is_the_documented_one() -> None:
    parameters = inspect.signature(SKNet).parameters
    assert list(parameters) == [
        "block", "layers", "num_classes", "kernel_sizes", "base_width", "cardinality", "resnet_args",
    ]  # fmt: skip
    assert parameters["num_classes"].default == 1000
    assert list(parameters["kernel_sizes"].default) == [3, 5]
    assert parameters["base_width"].default == 64
    assert parameters["cardinality"].default == 1
    assert parameters["resnet_args"].kind is inspect.Parameter.VAR_KEYWORD


def test_the_defaults_are_the_documented_ones() -> None:
    with torch.device("meta"):
        net = SKNet(SKBottleneck, [1, 1, 1, 1])
        spelled = SKNet(
            SKBottleneck,
            [1, 1, 1, 1],
            in_channels=3,
            stem_type=None,
            stem_width=64,
            avg_down=False,
            channels=(64, 128, 256, 512),
            split_input=False,
            rd_ratio=1 / 16,
            rd_divisor=32,
            keep_3x3=True,
        )
    assert shapes(net) == shapes(spelled)
    assert shapes(net)["conv1.weight"] == (64, 3, 7, 7)
    assert [tuple(unit.attn.fc_reduce.weight.shape[:2]) for *_, unit in units(net)] == [(32, 64), (32, 128), (32, 256), (32, 512)]
    branches = [module for *_, unit in units(net) for module in unit.modules() if isinstance(module, nn.Conv2d)]
    assert {m.kernel_size for m in branches} == {(3, 3), (1, 1)}
    assert {m.dilation for m in branches if m.kernel_size == (3, 3)} == {(1, 1), (2, 2)}
    assert net.fc.out_features == 1000
    assert isinstance(net.maxpool, nn.MaxPool2d)


def test_three_kernels_work_as_they_stand() -> None:
    net = SKNet(SKBasicBlock, [1, 1, 1, 1], kernel_sizes=[3, 5, 7]).eval()
    with torch.no_grad(), record_attention(net) as attention:
        assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
    assert [a.shape for a in attention.values()] == [(1, 3, c) for c in (64, 128, 256, 512)]


def test_the_attributes_hold_what_was_given() -> None:
    net = small(SKBottleneck, (2, 1), kernel_sizes=(3, 7), base_width=32, cardinality=4)
    assert net.kernel_sizes == [3, 7]
    assert net.base_width == 32
    assert net.cardinality == 4
    assert [len(stage) for stage in net.layers] == [2, 1]
    assert all(isinstance(block, SKBottleneck) for stage in net.layers for block in stage)
    assert [stage is getattr(net, f"layer{i}") for i, stage in enumerate(net.layers, start=1)] == [True, True]


@pytest.mark.parametrize(
    ("base_width", "cardinality", "widths"), [(64, 1, (8, 16)), (4, 32, (32, 32)), (36, 2, (8, 18)), (128, 1, (16, 32))]
)
def test_width_is_floored_before_the_cardinality(base_width: int, cardinality: int, widths: tuple[int, int]) -> None:
    channels = (8, 16) if base_width != 4 else (16, 31)
    net = small(SKBottleneck, channels=channels, base_width=base_width, cardinality=cardinality)
    assert tuple(unit.out_channels for *_, unit in units(net)) == widths
    groups = {m.groups for *_, unit in units(net) for m in unit.paths.modules() if isinstance(m, nn.Conv2d)}
    assert groups == {cardinality}


def test_the_stride_sits_in_the_unit_never_in_the_1x1() -> None:
    block = on_meta("sknet50").layers[1][0]
    convs = {name: module.stride for name, module in block.named_modules() if isinstance(module, nn.Conv2d)}
    strided = {name for name, stride in convs.items() if stride == (2, 2)}
    assert strided == {"conv2.paths.0.conv", "conv2.paths.1.conv", "downsample.0"}


def test_sknet50_is_skresnext50_tensor_for_tensor() -> None:
    assert shapes(on_meta("sknet50")) == shapes(on_meta("skresnext50_32x4d"))
    assert len(shapes(on_meta("sknet50"))) == 528


def test_the_deep_stem_has_the_published_keys() -> None:
    found = shapes(on_meta("skresnet50d"))
    assert {key.split(".")[1] for key in found if key.startswith("conv1.")} == {"0", "1", "3", "4", "6"}
    assert [found[f"conv1.{i}.weight"] for i in (0, 3, 6)] == [(32, 3, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)]
    assert {key.split(".")[3] for key in found if ".downsample." in key} == {"1", "2"}


def test_the_plain_stem_has_the_published_keys() -> None:
    found = shapes(on_meta("skresnet18"))
    assert found["conv1.weight"] == (64, 3, 7, 7)
    assert {key.split(".")[3] for key in found if ".downsample." in key} == {"0", "1"}
    assert found["layer2.0.conv1.attn.fc_select.weight"] == (256, 16, 1, 1)
    assert found["layer2.0.conv1.paths.1.conv.weight"] == (128, 32, 3, 3)  # sees half of 64 channels


def test_the_small_stem_keeps_a_small_image_large() -> None:
    net = small(stem_type="small", stem_kernel_size=5, stem_stride=2).eval()
    assert net.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 16, 8, 8)
    assert small(stem_type="small").eval().forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 16, 16, 16)
    assert isinstance(net.maxpool, nn.Identity)


def test_true_kernels_are_as_large_as_they_say() -> None:
    net = small(keep_3x3=False, kernel_sizes=[3, 7])
    kernels = {(m.kernel_size, m.dilation) for *_, unit in units(net) for m in unit.paths.modules() if isinstance(m, nn.Conv2d)}
    assert kernels == {((3, 3), (1, 1)), ((7, 7), (1, 1))}


def test_units_are_named_as_in_the_paper() -> None:
    named = {paper: path for paper, path, _ in units(on_meta("sknet50"))}
    assert len(named) == 16
    assert list(named)[:4] == ["SK_2_1", "SK_2_2", "SK_2_3", "SK_3_1"]
    assert (named["SK_2_3"], named["SK_3_4"]) == ("layer1.2.conv2", "layer2.3.conv2")
    assert (named["SK_4_6"], named["SK_5_3"]) == ("layer3.5.conv2", "layer4.2.conv2")
    net = on_meta("skresnet18")
    assert [(path, unit is net.get_submodule(path)) for _, path, unit in units(net)][2] == ("layer2.0.conv1", True)


def test_record_attention_leaves_no_hook_and_keeps_its_own_copy() -> None:
    net = small().eval()
    with torch.no_grad(), record_attention(net) as attention:
        net(torch.randn(2, 3, 32, 32))
    assert list(attention) == ["layer1.0.conv1", "layer2.0.conv1"]
    before = {path: a.clone() for path, a in attention.items()}
    with torch.no_grad():
        net(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(attention[path], before[path]) for path in before)
    assert not any(module._forward_hooks for module in net.modules())


def test_a_state_dict_round_trip_gives_the_same_answers() -> None:
    first, second = small().train(), small(num_classes=3)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1.0)
        first(torch.randn(4, 3, 32, 32))  # moves the running statistics away from their start
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        want = first.eval()(x)
        assert not torch.equal(second.eval()(x), want)
        assert second.load_state_dict(first.state_dict(), strict=True) == ([], [])
        assert torch.equal(second(x), want)


def test_initialisation_is_kaiming_fan_out_with_no_silenced_branch() -> None:
    torch.manual_seed(0)
    net = SKNet(SKBottleneck, [1, 1], num_classes=2)
    weight = net.get_submodule("layer2.0.conv3.conv").weight
    assert isinstance(weight, Tensor)
    assert weight.detach().std().item() == pytest.approx((2 / weight.shape[0]) ** 0.5, rel=0.03)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(torch.all(m.weight == 1) and torch.all(m.bias == 0) for m in norms)
    assert {(m.eps, m.momentum) for m in norms} == {(1e-5, 0.1)}


class _Twice(nn.Module):
    """A block of somebody else's: no `SKBlock`, with two units."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, *, stride: int, downsample: nn.Module | None, **_rest: Any) -> None:
        super().__init__()
        self.first = SelectiveKernel(in_channels, planes, stride=stride)
        self.second = SelectiveKernel(planes, planes)
        self.shortcut = downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x)) + self.shortcut(x)
        return out


def test_a_compatible_block_is_accepted() -> None:
    net = small(_Twice).eval()  # type: ignore[arg-type]  # compatible in shape, not by inheritance
    with torch.no_grad(), record_attention(net) as attention:
        assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert list(attention) == ["layer1.0.first", "layer1.0.second", "layer2.0.first", "layer2.0.second"]


def test_every_parameter_has_a_say_in_the_answer() -> None:
    net = small(SKBottleneck, kernel_sizes=[3, 5, 7], avg_down=True, stem_type="deep").double().eval()
    net(torch.randn(4, 3, 40, 40, dtype=torch.float64)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


@st.composite
def arguments(draw: st.DrawFn) -> tuple[type[SKBlock], list[int], dict[str, Any]]:
    kernels = draw(st.lists(st.sampled_from([3, 5, 7, 9]), min_size=2, max_size=4))
    unit = len(kernels) * 4  # divides among the branches, and among four groups in each of them
    block = draw(st.sampled_from([SKBasicBlock, SKBottleneck]))
    layers = draw(st.lists(st.integers(1, 2), min_size=1, max_size=3))
    stem = draw(st.sampled_from([None, "deep", "small"]))
    more: dict[str, Any] = {
        "num_classes": draw(st.integers(1, 6)),
        "kernel_sizes": kernels,
        "in_channels": draw(st.integers(1, 4)),
        "stem_type": stem,
        "stem_width": unit,
        "channels": [unit * draw(st.integers(1, 2)) for _ in layers],
        "avg_down": draw(st.booleans()),
        "split_input": draw(st.booleans()),
        "keep_3x3": draw(st.booleans()),
        "rd_ratio": draw(st.sampled_from([1 / 16, 1 / 8, 0.5, 1])),
        "rd_divisor": draw(st.sampled_from([1, 4, 32])),
    }
    if stem == "small":
        more |= {"stem_kernel_size": draw(st.sampled_from([1, 3, 5])), "stem_stride": draw(st.integers(1, 2))}
    if block is SKBottleneck:
        more |= {"cardinality": draw(st.sampled_from([1, 2, 4])), "base_width": draw(st.sampled_from([64, 128]))}
    return block, layers, more


@given(arguments(), st.tuples(st.integers(33, 48), st.integers(33, 48)))
@settings(max_examples=25, deadline=None)
def test_any_valid_network_answers_attends_and_learns(
    made: tuple[type[SKBlock], list[int], dict[str, Any]], size: tuple[int, int]
) -> None:
    block, layers, more = made
    torch.manual_seed(0)
    net = SKNet(block, layers, **more).train()
    with record_attention(net) as attention:
        logits = net(torch.randn(2, more["in_channels"], *size))
    assert logits.shape == (2, more["num_classes"])
    assert len(attention) == sum(layers)
    for a in attention.values():
        assert a.shape[:2] == (2, len(more["kernel_sizes"]))
        assert bool(((a >= 0) & (a <= 1)).all())
        torch.testing.assert_close(a.sum(1), torch.ones_like(a[:, 0]))
    logits.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
