"""The selective-kernel unit: section 3.1 of Li et al., "Selective Kernel Networks", CVPR 2019 (arXiv 1903.06586).

Symbols as in the paper: M branches, G groups, r reduction ratio, L the floor of the bottleneck, d its width, C channels.

Everything stays in four dimensions, (B, C, H, W): inference engines fuse the sums and products of this form and cannot
fuse the stacked (B, M, C, H, W) one. The numbers are the same to the bit in float32.

This file knows nothing of blocks, stages or images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.errors import ArchitectureError

BN_EPS = 1e-5  # the value every public checkpoint was trained with; 1e-3 moves logits by 0.03
BN_MOMENTUM = 0.1


def make_divisible(value: float, divisor: int) -> int:
    """Round to a multiple of `divisor`, never below it and never more than 10 % under `value`.

    Equals the paper's d = max(C / r, L) only where C is a power of two: C=640, r=16, L=32 gives 64 here, 40 there.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def check_kernel_sizes(kernel_sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the kernel sizes as a tuple.

    Raises:
        ArchitectureError: fewer than two, or one that is not an odd whole number of at least 3.
    """
    if not isinstance(kernel_sizes, list | tuple) or len(kernel_sizes) < 2:
        raise ArchitectureError(
            f"kernel_sizes={kernel_sizes!r}: a selective-kernel unit needs two or more kernel sizes, such as [3, 5]"
        )
    for size in kernel_sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 3 or size % 2 == 0:
            raise ArchitectureError(f"kernel_sizes={list(kernel_sizes)!r} has {size!r}: each must be an odd number, 3 or more")
    return tuple(kernel_sizes)


def check_whole(name: str, value: object) -> None:
    """Raise `ArchitectureError` unless `value` is a whole number of at least 1; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArchitectureError(f"{name}={value!r}: give a whole number, 1 or more")


def check_switch(name: str, value: object) -> None:
    """Raise `ArchitectureError` unless `value` is a bool: a text such as "false" would count as true."""
    if not isinstance(value, bool):
        raise ArchitectureError(f"{name}={value!r}: allowed are True and False")


def check_ratio(name: str, value: object) -> None:
    """Raise `ArchitectureError` unless `value` is a number above 0 and at most 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ArchitectureError(f"{name}={value!r}: give a number above 0 and at most 1, such as 1/16")


class ConvNormAct(nn.Module):
    """Convolution without bias, batch normalisation, and (where asked) ReLU: (B, Cin, H, W) -> (B, Cout, H/stride, W/stride)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        apply_act: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size - 1) // 2,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = nn.ReLU(inplace=True) if apply_act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class SelectiveKernelAttention(nn.Module):
    """Fuse and select: channel statistics -> softmax over the branches.

    Its normalisation and ReLU are fixed by the paper; activations chosen elsewhere do not reach in here.
    """

    def __init__(self, channels: int, num_paths: int, attn_channels: int) -> None:
        super().__init__()
        self.num_paths = num_paths
        self.fc_reduce = nn.Conv2d(channels, attn_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(attn_channels, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = nn.ReLU(inplace=True)
        self.fc_select = nn.Conv2d(attn_channels, channels * num_paths, 1, bias=False)

    def forward(self, s: Tensor) -> Tensor:
        """s: (B, C, 1, 1), the pooled sum of the branches -> attention (B, M, C), summing to 1 over M."""
        if self.bn.training and s.shape[0] == 1:
            # The statistics are one value per channel and image, so a batch of one has no variance to normalise by.
            raise ArchitectureError(
                "a selective-kernel network cannot be trained with a batch of one: the batch normalisation inside its "
                "attention sees 1x1 maps. Use two or more images, or call .eval() first"
            )
        z = self.act(self.bn(self.fc_reduce(s)))  # (B, d, 1, 1)
        scores = self.fc_select(z)  # (B, M*C, 1, 1), path-major
        return torch.softmax(scores.reshape(s.shape[0], self.num_paths, s.shape[1]), dim=1)


class SelectiveKernel(nn.Module):
    """Split, fuse, select: out = sum over m of a_m * branch_m, with (B, Cin, H, W) -> (B, Cout, H/stride, W/stride).

    Args:
        kernel_sizes: nominal size of each branch's kernel.
        keep_3x3: build a k x k kernel as a 3x3 one of dilation (k - 1) / 2, as the paper does; else truly k x k.
        split_input: each branch sees its own C/M slice of the input channels, in order.
        rd_ratio: 1 / r. rd_divisor: L; d = make_divisible(Cout * rd_ratio, rd_divisor).

    Raises:
        ArchitectureError: an argument out of range, or groups, channels and branches that do not go together.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_sizes: Sequence[int] = (3, 5),
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        rd_ratio: float = 1 / 16,
        rd_divisor: int = 32,
        keep_3x3: bool = True,
        split_input: bool = False,
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        for name, value in (
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("stride", stride),
            ("dilation", dilation),
            ("groups", groups),
            ("rd_divisor", rd_divisor),
        ):
            check_whole(name, value)
        check_ratio("rd_ratio", rd_ratio)
        check_switch("keep_3x3", keep_3x3)
        check_switch("split_input", split_input)
        self.kernel_sizes = check_kernel_sizes(kernel_sizes)
        self.num_paths = len(self.kernel_sizes)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.split_input = split_input
        if split_input and in_channels % self.num_paths:
            raise ArchitectureError(
                f"split_input=True with {in_channels} input channels and {self.num_paths} kernel sizes: "
                f"the channels must divide evenly among the branches"
            )
        branch_channels = in_channels // self.num_paths if split_input else in_channels
        groups = min(out_channels, groups)
        if branch_channels % groups or out_channels % groups:
            raise ArchitectureError(
                f"{groups} groups do not divide a branch of {branch_channels} input and {out_channels} output channels"
            )
        self.paths = nn.ModuleList(
            ConvNormAct(
                branch_channels,
                out_channels,
                3 if keep_3x3 else size,
                stride=stride,
                dilation=dilation * (size - 1) // 2 if keep_3x3 else dilation,
                groups=groups,
            )
            for size in self.kernel_sizes
        )
        attn_channels = make_divisible(out_channels * rd_ratio, rd_divisor)
        self.attn = SelectiveKernelAttention(out_channels, self.num_paths, attn_channels)

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.chunk(self.num_paths, dim=1) if self.split_input else (x,) * self.num_paths
        branches: list[Tensor] = [path(part) for path, part in zip(self.paths, inputs, strict=True)]  # M x (B, C, H, W)
        fused = branches[0]
        for branch in branches[1:]:
            fused = fused + branch
        attention = self.attn(fused.mean((2, 3), keepdim=True))  # (B, M, C)
        weights = attention.unsqueeze(-1).unsqueeze(-1)  # (B, M, C, 1, 1)
        out: Tensor = branches[0] * weights[:, 0]
        for m, branch in enumerate(branches[1:], start=1):
            out = out + branch * weights[:, m]
        return out  # (B, C, H, W)
