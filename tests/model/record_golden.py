"""Networks whose every weight follows from its name, and the recorded answers they must go on giving.

Guards against a change that timm would make with us, and covers the variants timm does not have. The record is remade by
`python -m tests.model.record_golden`, only when an architecture is meant to change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from model.sknet import SKNet, build, record_attention

RECORD = Path(__file__).with_name("sknet_golden.json")
# One of each kind of block, stem and shortcut, and the two variants that timm lacks; the others are compared with timm.
RECORDED = ("skresnet18", "skresnet50d", "sknet26", "sknet101")


def fill_by_name(net: nn.Module) -> None:
    """Overwrite every weight and statistic with numbers that depend on its key and shape alone."""
    state = net.state_dict()
    last = "conv3.bn.weight" if any("conv3." in key for key in state) else "conv2.bn.weight"
    with torch.no_grad():
        for key, tensor in state.items():
            if not key.endswith("num_batches_tracked"):
                tensor.copy_(torch.from_numpy(_values(key, tuple(tensor.shape), last)))


def _values(key: str, shape: tuple[int, ...], last: str) -> npt.NDArray[np.float32]:
    random = np.random.RandomState(crc32(key.encode()))
    if key.endswith("running_var"):
        values = 0.5 + random.uniform(size=shape)
    elif key.endswith(("running_mean", "bias")):
        values = 0.1 * random.standard_normal(shape)
    elif len(shape) == 4:
        values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif len(shape) == 2:
        values = random.standard_normal(shape) / np.sqrt(shape[1])
    else:
        # A residual branch's last weight is small, or the sums grow from block to block until float32 has no room.
        values = (0.5 + random.uniform(size=shape)) * (0.25 if key.endswith(last) else 1.0)
    return values.astype(np.float32)


def golden_network(name: str) -> SKNet:
    """The variant with named weights, float64, in evaluation mode."""
    with torch.device("meta"):
        net = build(name)
    net = net.to_empty(device="cpu")  # no time spent on an initialisation that is overwritten
    fill_by_name(net)
    return net.double().eval()


def golden_input() -> Tensor:
    """One image of odd sides, (1, 3, 75, 101): its smallest map, 3x4, still lets a dilated branch see its outer taps."""
    random = np.random.RandomState(1234)
    return torch.from_numpy(random.standard_normal((1, 3, 75, 101)).astype(np.float32)).double()


def answers(net: SKNet) -> dict[str, Any]:
    """The image's first eight logits, and the attention difference of each unit by module path.

    The difference is mean over channels of a(last kernel) minus mean over channels of a(first kernel).
    """
    with torch.no_grad(), record_attention(net) as attention:
        logits = net(golden_input())
    return {
        "logits": logits[0, :8].tolist(),
        "attention_difference": {path: float((a[0, -1] - a[0, 0]).mean()) for path, a in attention.items()},
    }


def main() -> None:
    record = {name: answers(golden_network(name)) for name in tqdm(RECORDED)}
    rounded = json.loads(json.dumps(record), parse_float=lambda text: round(float(text), 9))
    RECORD.write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()
