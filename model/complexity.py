"""How large and how costly a network is: parameters and multiply-accumulates.

Works on any module that takes images (1, C, H, W); knows nothing of SKNet, files or devices.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def count_parameters(net: nn.Module) -> int:
    """Number of learned values; the running statistics of batch normalisation are none."""
    return sum(p.numel() for p in net.parameters())


def count_macs(net: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-accumulates of every convolution and linear layer for one image of `size` = (height, width) pixels.

    The attention's 1x1 convolutions count; normalisation, activations, pooling and the branches' weighted sum do not, as
    in the published figures. Nothing is computed and `net` is left as it was, also while it serves: the pass runs on a
    copy without memory.

    Raises:
        ValueError: a network that does not begin with a convolution or has none.
    """
    twin = _shape_only(net).eval()
    total = 0

    def add(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.Linear)
        # A weight's first axis is the outputs; what remains is the multiplications behind each of them.
        total += output.numel() * module.weight[0].numel()

    counted = [m for m in twin.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    if not counted or not isinstance(counted[0], nn.Conv2d):
        raise ValueError(f"{type(net).__name__} does not begin with a convolution, so its number of image channels is unknown")
    for module in counted:
        module.register_forward_hook(add)
    image = torch.empty((1, counted[0].in_channels, *size), dtype=counted[0].weight.dtype, device="meta")
    with torch.no_grad():
        twin(image)
    return total


def _shape_only(net: nn.Module) -> nn.Module:
    """Copy the modules but not the numbers: every tensor of the copy lives on the meta device."""
    memo: dict[int, object] = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in net.parameters()}
    memo.update({id(b): b.to("meta") for b in net.buffers()})
    return copy.deepcopy(net, memo)
