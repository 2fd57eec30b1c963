"""SGD with Nesterov momentum, and Muon for the convolutions that a batch normalisation follows.

Muon (Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks") replaces each matrix-shaped momentum by
the nearest orthogonal matrix, found by a few Newton-Schulz iterations. A convolution that is normalised after has no scale of
its own, so its weight is kept at a fixed norm and weight decay is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalised(matrix: Tensor, steps: int = 4) -> Tensor:
    """Approximate U V' of `matrix` = U S V', by a quintic Newton-Schulz iteration in bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315  # coefficients of the Muon report: fast growth of small singular values
    x: Tensor = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x if wide else x.T).to(matrix.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised per convolution, on weights of fixed norm."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.9) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})
        for group in self.param_groups:
            for weight in group["params"]:
                _rescale(weight)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # one call, no closure: the loop has the loss
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                buffer = state["momentum_buffer"]
                buffer.mul_(group["momentum"]).add_(weight.grad)
                update = weight.grad.add(buffer, alpha=group["momentum"])
                flat = orthogonalised(update.reshape(len(update), -1))
                weight.add_(flat.reshape(weight.shape), alpha=-group["lr"])
                _rescale(weight)


@torch.no_grad()
def _rescale(weight: Tensor) -> None:
    weight.mul_(len(weight) ** 0.5 / (weight.norm() + 1e-7))


def split_parameters(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """(3x3 convolutions that are normalised after, other weights, biases and normalisation)."""
    scale_free, weights, rest = [], [], []
    for name, parameter in net.named_parameters():
        if parameter.ndim == 4 and parameter.shape[-1] > 1 and name.endswith("conv.weight"):
            scale_free.append(parameter)
        elif parameter.ndim >= 2:
            weights.append(parameter)
        else:
            rest.append(parameter)
    return scale_free, weights, rest
