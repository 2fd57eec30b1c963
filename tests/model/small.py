"""A network small enough for any test, as a module and as a checkpoint on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from model.observed import Observed
from model.sknet import BLOCKS, SKNet

ARGUMENTS: dict[str, Any] = {
    "block": "basic",
    "layers": [1, 1],
    "channels": [8, 16],
    "stem_type": "small",
    "stem_width": 8,
    "rd_divisor": 8,
    "num_classes": 3,
}
CARD: dict[str, Any] = {
    "variant": "sknet-tiny",
    "arguments": ARGUMENTS,
    "labels": ["ant", "bee", "cat"],
    "accuracy": {"top1": 9.5},
}


def tiny() -> SKNet:
    torch.manual_seed(0)
    arguments = {key: value for key, value in ARGUMENTS.items() if key not in ("block", "layers")}
    net = SKNet(BLOCKS["basic"], ARGUMENTS["layers"], **arguments).eval()
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * torch.randn_like(buffer))  # means above 0.5 put out every ReLU: the answer was the bias alone
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand_like(buffer))
    return net


def observed(net: SKNet | None = None) -> Observed:
    """What engines run, by default of the tiny network."""
    return Observed(tiny() if net is None else net).eval()


def write(folder: Path, state: dict[str, Tensor] | None = None, **changes: Any) -> Path:
    """A weights file with its card, as the package's own."""
    file = folder / "tiny.safetensors"
    save_file(tiny().state_dict() if state is None else state, file)
    file.with_suffix(".json").write_text(json.dumps({**CARD, **changes}))
    return file
