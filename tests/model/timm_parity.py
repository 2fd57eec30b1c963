"""What the comparisons with timm share: the yardstick's networks, their randomised statistics, their attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import timm
import torch
from torch import Tensor, nn

from model.sknet import SKNet, build

TIMM_VARIANTS = ("skresnet18", "skresnet34", "skresnet50", "skresnet50d", "skresnext50_32x4d")
INPUT_SHAPES = ((2, 3, 128, 128), (1, 3, 75, 101))  # odd sides meet every rounding of strides and pools


def randomise_statistics(net: nn.Module) -> None:
    """Fill every batch normalisation with values that a mistake in its place, order or eps cannot survive."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.copy_(0.1 * torch.randn_like(module.running_mean))
                module.running_var.copy_(0.5 + torch.rand_like(module.running_var))
                module.weight.copy_(0.5 + torch.rand_like(module.weight))
                module.bias.copy_(0.1 * torch.randn_like(module.bias))


def pair(name: str) -> tuple[nn.Module, SKNet]:
    """timm's network and ours with the same weights, in evaluation mode, float32. Loading is strict."""
    torch.manual_seed(0)
    theirs: nn.Module = timm.create_model(name, pretrained=False).eval()
    randomise_statistics(theirs)
    with torch.device("meta"):
        ours = build(name).eval()
    ours = ours.to_empty(device="cpu")  # without spending time on an initialisation that is overwritten
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


@contextmanager
def timm_attention(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect timm's attention, (B, M, C) by the unit's module path, of the passes made inside the context."""
    seen: dict[str, Tensor] = {}
    handles = []
    for path, module in net.named_modules():
        if path.endswith(".attn"):

            def keep(_m: nn.Module, _i: object, output: Tensor, path: str = path.removesuffix(".attn")) -> None:
                seen[path] = output.clone().flatten(2)  # theirs is (B, M, C, 1, 1)

            handles.append(module.register_forward_hook(keep))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in INPUT_SHAPES]
