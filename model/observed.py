"""A network that also tells what it looked at: the attention of its units and its last feature map, out of the same pass.

Engines run, trace and compile this instead of the bare network. It knows nothing of devices, precisions or engines.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

from model.sknet import SKNet, units


class _Seen(threading.local):
    """What the hooks told in this thread; None while nobody asked."""

    means: list[Tensor] | None = None

    def __deepcopy__(self, _memo: object) -> _Seen:
        return _Seen()  # compilers copy modules


class Observed(nn.Module):
    """Images (B, in_channels, H, W) -> logits (B, num_classes), attention (B, U, M), features (B, F, H', W').

    `attention` is the mean over each unit's channels of its share for each of the M kernels; the U units are in network order.
    `features` is what global average pooling and the classifier make the logits of. Several threads may run it at once.
    """

    def __init__(self, net: SKNet) -> None:
        super().__init__()
        self.net = net
        # Of each thread its own: a hook knows the module that was called, but not for whom.
        self._seen = _Seen()
        for _, _, unit in units(net):
            unit.attn.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: tuple[Tensor, ...], attention: Tensor) -> None:
        if self._seen.means is not None:  # else somebody calls the bare network
            self._seen.means.append(attention.float().mean(2))  # (B, M), in memory of its own: nothing in place overwrites it

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        means: list[Tensor] = []
        self._seen.means = means
        try:
            features = self.net.forward_features(x)
        finally:
            self._seen.means = None
        return self.net.fc(features.mean((2, 3))), torch.stack(means, 1), features
