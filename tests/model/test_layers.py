"""`model.layers`: the selective-kernel unit against a re-implementation in plain numpy that shares no code with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.errors import ArchitectureError
from model.layers import ConvNormAct, SelectiveKernel, SelectiveKernelAttention, check_kernel_sizes, make_divisible
from tests.model.timm_parity import randomise_statistics

Array = npt.NDArray[np.float64]


def conv(x: Array, weight: Array, *, stride: int, dilation: int, groups: int) -> Array:
    """Sum over the kernel's taps, each a shifted copy of the padded input; padding keeps the size at stride 1."""
    batch, _, height, width = x.shape
    out_channels, group_in, taps, _ = weight.shape
    pad = dilation * (taps - 1) // 2
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    group_out = out_channels // groups
    out = np.zeros((batch, out_channels, -(-height // stride), -(-width // stride)))
    for g in range(groups):
        rows = slice(g * group_out, (g + 1) * group_out)
        columns = slice(g * group_in, (g + 1) * group_in)
        for i in range(taps):
            for j in range(taps):
                seen = padded[:, columns, i * dilation :, j * dilation :][:, :, :height:stride, :width:stride]
                out[:, rows] += np.einsum("oc,bchw->bohw", weight[rows, :, i, j], seen)
    return out


def norm_relu(x: Array, state: dict[str, Array], prefix: str) -> Array:
    mean, var, weight, bias = (state[f"{prefix}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    shape = (1, -1) + (1,) * (x.ndim - 2)
    scaled = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 1e-5)
    return np.maximum(scaled * weight.reshape(shape) + bias.reshape(shape), 0)


def reference(x: Array, state: dict[str, Array], kernels: tuple[int, ...], **how: Any) -> tuple[Array, Array]:
    """Section 3.1 of the paper: (output, attention (B, M, C))."""
    stride, dilation, groups = how.get("stride", 1), how.get("dilation", 1), how.get("groups", 1)
    branches = []
    for m, k in enumerate(kernels):
        part = x
        if how.get("split_input", False):
            share = x.shape[1] // len(kernels)
            part = x[:, m * share : (m + 1) * share]
        spread = dilation * (k - 1) // 2 if how.get("keep_3x3", True) else dilation
        y = conv(part, state[f"paths.{m}.conv.weight"], stride=stride, dilation=spread, groups=groups)
        branches.append(norm_relu(y, state, f"paths.{m}.bn"))
    s = sum(branches).mean(axis=(2, 3))  # type: ignore[union-attr]  # at least two branches, so never the number 0
    z = norm_relu(s @ state["attn.fc_reduce.weight"][:, :, 0, 0].T, state, "attn.bn")
    scores = (z @ state["attn.fc_select.weight"][:, :, 0, 0].T).reshape(len(x), len(kernels), -1)
    e = np.exp(scores)
    attention = e / e.sum(axis=1, keepdims=True)
    out: Array = np.zeros_like(branches[0])
    for m, branch in enumerate(branches):
        out += attention[:, m, :, None, None] * branch
    return out, attention


def unit_of(in_channels: int, **how: Any) -> SelectiveKernel:
    torch.manual_seed(0)
    unit = SelectiveKernel(in_channels, **how).double().eval()
    randomise_statistics(unit)
    return unit


def numbers(unit: SelectiveKernel) -> dict[str, Array]:
    return {key: value.numpy() for key, value in unit.state_dict().items()}


CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "three_kernels": {"kernel_sizes": [3, 5, 7]},
    "four_kernels_unordered": {"kernel_sizes": (7, 3, 9, 5)},
    "true_5x5": {"keep_3x3": False},
    "true_3x3_5x5_7x7": {"keep_3x3": False, "kernel_sizes": [3, 5, 7]},
    "dilation_2": {"dilation": 2},
    "true_5x5_dilation_2": {"keep_3x3": False, "dilation": 2},
    "groups": {"groups": 12},
    "stride_2": {"stride": 2},
    "true_5x5_stride_2": {"keep_3x3": False, "stride": 2},
    "split": {"split_input": True},
    "split_in_three": {"split_input": True, "kernel_sizes": [3, 5, 7]},
    "split_groups_stride": {"split_input": True, "groups": 4, "stride": 2},
    "other_ratio": {"rd_ratio": 1 / 8, "rd_divisor": 16},
    "more_outputs": {"out_channels": 36},
}


@pytest.mark.parametrize("how", CASES.values(), ids=CASES.keys())
def test_the_unit_equals_the_equations(how: dict[str, Any]) -> None:
    unit = unit_of(24, **how)
    x = np.random.RandomState(1).standard_normal((2, 24, 9, 12))
    seen: list[torch.Tensor] = []
    unit.attn.register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
    with torch.no_grad():
        out = unit(torch.from_numpy(x)).numpy()
    rest = {k: v for k, v in how.items() if k != "kernel_sizes"}
    want, attention = reference(x, numbers(unit), tuple(how.get("kernel_sizes", (3, 5))), **rest)
    assert out.shape == want.shape
    np.testing.assert_allclose(out, want, rtol=0, atol=1e-12)
    np.testing.assert_allclose(seen[0].numpy(), attention, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("value", "divisor", "want"),
    [
        (640 / 16, 32, 64),  # the paper's max(C/r, L) would say 40
        (512 / 16, 32, 32),
        (1024 / 16, 32, 64),
        (64 / 16, 8, 8),
        (64 / 8, 16, 16),
        (4, 32, 32),
        (35, 32, 32),  # within 10 %
        (36, 32, 64),  # 32 would be more than 10 % under it
        (16.5, 8, 16),
    ],
)
def test_make_divisible(value: float, divisor: int, want: int) -> None:
    assert make_divisible(value, divisor) == want


def test_the_attention_width_is_rounded_not_clipped() -> None:
    with torch.device("meta"):
        unit = SelectiveKernel(640, rd_ratio=1 / 16, rd_divisor=32)
    assert tuple(unit.attn.fc_reduce.weight.shape) == (64, 640, 1, 1)
    assert tuple(unit.attn.fc_select.weight.shape) == (1280, 64, 1, 1)


def test_the_scores_are_path_major() -> None:
    attention = SelectiveKernelAttention(channels=4, num_paths=3, attn_channels=2).eval()
    torch.nn.init.ones_(attention.fc_reduce.weight)
    torch.nn.init.zeros_(attention.fc_select.weight)
    with torch.no_grad():
        attention.fc_select.weight[4:8] = 30.0  # the second path's rows, all channels
        a = attention(torch.ones(1, 4, 1, 1))
    assert a.shape == (1, 3, 4)
    assert torch.all(a[:, 1] > 0.99)
    assert torch.all(a[:, [0, 2]] < 0.01)


def test_the_attention_sees_the_sum_of_the_branches_not_their_mean() -> None:
    unit = unit_of(8, kernel_sizes=[3, 5, 7])
    branches: list[torch.Tensor] = []
    pooled: list[torch.Tensor] = []
    for path in unit.paths:
        path.register_forward_hook(lambda _m, _i, output: branches.append(output.clone()))
    unit.attn.register_forward_pre_hook(lambda _m, inputs: pooled.append(inputs[0].clone()))
    with torch.no_grad():
        unit(torch.randn(2, 8, 6, 6, dtype=torch.float64))
    total = torch.stack(branches).sum(0).mean((2, 3), keepdim=True)
    assert total.abs().max() > 0.1
    torch.testing.assert_close(pooled[0], total, rtol=0, atol=1e-12)


def test_every_normalisation_has_the_published_eps_and_momentum() -> None:
    unit = SelectiveKernel(8)
    norms = [m for m in unit.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 3  # two branches and the attention
    assert {(n.eps, n.momentum) for n in norms} == {(1e-5, 0.1)}


def test_the_input_is_split_in_order() -> None:
    unit = unit_of(8, split_input=True)
    changed = torch.zeros(1, 8, 5, 5, dtype=torch.float64)
    changed[:, 4:] = 1.0  # the second half only
    outputs: list[torch.Tensor] = []
    for path in unit.paths:
        path.register_forward_hook(lambda _m, _i, output: outputs.append(output.clone()))
    with torch.no_grad():
        unit(torch.zeros_like(changed))
        unit(changed)
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[1], outputs[3])


def test_more_groups_than_outputs_become_as_many_as_outputs() -> None:
    unit = SelectiveKernel(32, 8, groups=32)
    assert [path.conv.groups for path in unit.paths if isinstance(path, ConvNormAct)] == [8, 8]


def test_a_batch_of_one_is_refused_in_training_only() -> None:
    unit = SelectiveKernel(8).train()
    with pytest.raises(ArchitectureError, match=r"batch of one.*1x1 maps.*two or more images.*\.eval\(\)"):
        unit(torch.zeros(1, 8, 4, 4))
    assert unit(torch.zeros(2, 8, 4, 4)).shape == (2, 8, 4, 4)
    assert unit.eval()(torch.zeros(1, 8, 4, 4)).shape == (1, 8, 4, 4)


def test_frozen_statistics_accept_a_batch_of_one_in_training() -> None:
    unit = SelectiveKernel(8).train()
    unit.attn.bn.eval()
    assert unit(torch.zeros(1, 8, 4, 4)).shape == (1, 8, 4, 4)


@pytest.mark.parametrize("sizes", [[3], [], (), None, 5, "35", {3, 5}])
def test_fewer_than_two_kernels_are_refused(sizes: Any) -> None:
    with pytest.raises(ArchitectureError, match="two or more kernel sizes") as caught:
        check_kernel_sizes(sizes)
    assert repr(sizes) in str(caught.value)


@pytest.mark.parametrize("bad", [4, 2, 1, 0, -3, 3.0, "3", None, True])
def test_an_even_or_small_kernel_is_refused(bad: Any) -> None:
    with pytest.raises(ArchitectureError, match="odd number, 3 or more") as caught:
        check_kernel_sizes([5, bad])
    assert f"has {bad!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("how", "given", "allowed"),
    [
        ({"split_input": True, "kernel_sizes": [3, 5, 7]}, "16 input channels and 3 kernel sizes", "divide evenly"),
        ({"groups": 3}, "3 groups", "16 input and 16 output"),
        ({"groups": 16, "split_input": True}, "16 groups", "8 input and 16 output"),
        ({"groups": 0}, "groups=0", "1 or more"),
        ({"stride": 0}, "stride=0", "1 or more"),
        ({"dilation": -1}, "dilation=-1", "1 or more"),
        ({"out_channels": 0}, "out_channels=0", "1 or more"),
        ({"rd_divisor": 1.5}, "rd_divisor=1.5", "whole number"),
        ({"rd_ratio": 0}, "rd_ratio=0", "above 0 and at most 1"),
        ({"rd_ratio": float("nan")}, "rd_ratio=nan", "above 0 and at most 1"),
        ({"split_input": "no"}, "split_input='no'", "True and False"),
        ({"keep_3x3": 1}, "keep_3x3=1", "True and False"),
    ],
)
def test_arguments_that_make_no_unit_are_refused(how: dict[str, Any], given: str, allowed: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        SelectiveKernel(16, **how)
    assert given in str(caught.value)
    assert allowed in str(caught.value)
