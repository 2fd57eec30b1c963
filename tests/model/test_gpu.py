"""The networks on a CUDA device: what the processor gives, and no memory kept. Skipped where there is none."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from model import engines
from model.checkpoint import build_network, resolve
from model.device import place
from model.manager import LoadRequest, load
from model.preprocess import prepare
from model.registry import VARIANTS
from model.sknet import SKNet, build
from tests.images import encode, photograph

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch finds none"),
]


@pytest.fixture
def float32_in_full() -> Iterator[None]:
    """Without TF32, which keeps 10 bits of a float32's mantissa and is the default of convolutions."""
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]  # torch does not type it
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "ieee"
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.fp32_precision = value


def lively(name: str) -> SKNet:
    """Freshly initialised, but with statistics of normalisation that are not those of a fresh network."""
    torch.manual_seed(0)
    net = build(name, num_classes=10).eval()
    for key, buffer in net.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif key.endswith("running_var"):
            buffer.uniform_(0.8, 1.2)
    return net


@pytest.mark.usefixtures("float32_in_full")
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_gives_the_processors_logits(name: str) -> None:
    batch = np.random.default_rng(0).standard_normal((2, 3, 96, 96)).astype(np.float32)
    rows = []
    for device in ("cpu", "cuda"):
        engine = engines.make("eager", lambda: lively(name), (96, 96), place(device, "float32"))
        rows.append(engine.run(batch))
        engine.close()
    on_cpu, on_gpu = rows
    scale = np.abs(on_cpu).max()
    assert np.isfinite(scale)
    assert scale > 0
    assert np.abs(on_gpu - on_cpu).max() <= 1e-4 * scale


def test_bfloat16_ranks_the_same_class_first() -> None:
    checkpoint = resolve("bundled:cifar10")
    pictures = [photograph(name) for name in ("chelsea", "astronaut", "coffee")]
    crops = [p.crop((x, y, x + side, y + side)) for p in pictures for side in (120, 240) for x in (0, 80, 160) for y in (0, 50)]
    batch = np.stack([prepare(crop, checkpoint.preprocess) for crop in crops])
    rows = []
    for device, precision in (("cpu", "float32"), ("cuda", "bfloat16")):
        engine = engines.make("eager", lambda: build_network(checkpoint), checkpoint.preprocess.size, place(device, precision))
        rows.append(engine.run(batch))
        engine.close()
    exact, rounded = rows
    best = np.sort(exact, axis=1)
    clear = best[:, -1] - best[:, -2] > 0.1  # in logits; nearer than that, rounding may decide
    assert clear.sum() >= len(crops) // 2
    assert (exact.argmax(1) == rounded.argmax(1))[clear].all()


def test_a_closed_model_leaves_no_memory_behind() -> None:
    picture = encode(photograph("chelsea"))

    def load_run_close() -> int:
        model = load(LoadRequest("bundled:cifar10", device="cuda"))
        assert model.info.device.value == "cuda:0"
        loaded = torch.cuda.memory_allocated()
        model.run([model.prepare(picture)] * 4)
        model.close()
        gc.collect()
        assert torch.cuda.memory_allocated() < loaded
        return torch.cuda.memory_allocated()

    first = load_run_close()  # the libraries keep their work space from the first run on
    assert [load_run_close() for _ in range(3)] == [first] * 3
