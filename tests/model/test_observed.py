"""`model.observed`: what hooks would tell, out of the same pass, whoever else runs the network meanwhile."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.observed import Observed
from model.registry import VARIANTS
from model.sknet import BLOCKS, SKNet, build, record_attention, units

Outputs = tuple[Tensor, Tensor, Tensor]
SMALL: dict[str, Any] = {"channels": (8, 16, 24, 32), "rd_divisor": 8, "num_classes": 5, "stem_width": 8}
NETWORKS: dict[str, dict[str, Any]] = {
    "basic": {"block": "basic", "layers": [2, 1, 1, 1]},
    "bottleneck": {"block": "bottleneck", "layers": [1, 2, 1, 1]},
    "three kernels": {"block": "bottleneck", "layers": [1, 1], "kernel_sizes": (3, 5, 7)},
    "deep stem": {"block": "bottleneck", "layers": [1, 1], "stem_type": "deep", "avg_down": True},
    "small stem": {"block": "basic", "layers": [1, 1, 1], "stem_type": "small"},
    "split input": {"block": "basic", "layers": [1, 1], "split_input": True},
    "split in groups": {"block": "bottleneck", "layers": [1, 1], "split_input": True, "cardinality": 4, "base_width": 32},
    "true kernels": {"block": "basic", "layers": [1], "keep_3x3": False},
}
IMAGES = torch.randn((3, 3, 64, 72), generator=torch.Generator().manual_seed(1))


def lively(block: str, layers: list[int], **arguments: Any) -> SKNet:
    """In evaluation mode, with statistics and attention that are not those of a fresh network, which hardly decides."""
    torch.manual_seed(0)
    net = SKNet(BLOCKS[block], layers, **{**SMALL, **arguments}).eval()  # type: ignore[index]
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        for _, _, unit in units(net):
            unit.attn.fc_select.weight.mul_(4)
    return net


def tiny() -> SKNet:
    return lively("basic", [1, 1])


@pytest.fixture(params=NETWORKS, ids=str)
def net(request: pytest.FixtureRequest) -> SKNet:
    return lively(**NETWORKS[request.param])


def assert_same(found: Outputs, wanted: Outputs) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


def by_hand(net: SKNet, x: Tensor) -> Outputs:
    """The same with the hooks that explain a bare network."""
    with record_attention(net) as seen:
        logits = net(x)
    means = torch.stack([seen[path].mean(2) for _, path, _ in units(net)], 1)
    return logits, means, net.forward_features(x)


@torch.no_grad()
def test_it_tells_what_hooks_tell_of_the_bare_network(net: SKNet) -> None:
    wanted = by_hand(net, IMAGES)
    found: Outputs = Observed(net).eval()(IMAGES)
    assert_same(found, wanted)
    attention = found[1]
    kernels, count = len(net.kernel_sizes), len(list(units(net)))
    assert attention.shape == (3, count, kernels)
    assert torch.allclose(attention.sum(2), torch.ones(3, count), atol=1e-6)
    assert (attention.amax((0, 1)) - attention.amin((0, 1))).min() > 0.005, "units that do not differ would hide their order"
    assert (attention[0] != attention[1]).all()


@torch.no_grad()
def test_hooks_of_the_same_pass_see_the_same(net: SKNet) -> None:
    observed = Observed(net).eval()
    with record_attention(net) as seen:
        _, attention, _ = observed(IMAGES)
    assert torch.equal(attention, torch.stack([seen[path].mean(2) for _, path, _ in units(net)], 1))


@pytest.mark.parametrize("name", ["skresnet18", "skresnet50d", "skresnext50_32x4d"])
@torch.no_grad()
def test_variants_of_the_registry_are_observed_in_network_order(name: str) -> None:
    torch.manual_seed(0)
    net = build(name, num_classes=4).eval()
    x = IMAGES[:1]
    assert_same(Observed(net).eval()(x), by_hand(net, x))
    assert len(list(units(net))) == sum(VARIANTS[name].arguments["layers"])


@torch.no_grad()
def test_it_follows_the_networks_own_weights_and_mode() -> None:
    net = tiny()
    observed = Observed(net)
    observed.eval()
    assert not net.training
    before = observed(IMAGES)
    net.fc.bias.add_(1)
    torch.testing.assert_close(observed(IMAGES)[0], before[0] + 1)
    assert {name.removeprefix("net.") for name in observed.state_dict()} == set(net.state_dict())  # nothing is stored twice


@torch.no_grad()
def test_rounded_networks_are_averaged_in_float32() -> None:
    net = tiny().bfloat16()
    with record_attention(net) as seen:
        logits, attention, features = Observed(net).eval()(IMAGES.bfloat16())
    assert (logits.dtype, attention.dtype, features.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    exact = Observed(tiny()).eval()(IMAGES)[1]
    assert 0 < float((attention - exact).abs().max()) < 0.005
    assert torch.equal(attention, torch.stack([shares.float().mean(2) for shares in seen.values()], 1))
    assert not torch.equal(attention, torch.stack([shares.mean(2).float() for shares in seen.values()], 1))


@torch.no_grad()
def test_who_calls_the_bare_network_is_not_recorded() -> None:
    net = tiny()
    observed = Observed(net).eval()
    wanted = observed(IMAGES)
    with record_attention(net) as seen:
        assert torch.equal(net(IMAGES), wanted[0])
    assert len(seen) == 2  # and the hooks of others still work
    assert torch.equal(net.forward_features(IMAGES), wanted[2])
    assert observed._seen.means is None
    assert_same(observed(IMAGES), wanted)  # of its own pass only


@torch.no_grad()
def test_a_pass_that_failed_leaves_nothing_for_the_next() -> None:
    net = tiny()
    observed = Observed(net).eval()
    wanted = observed(IMAGES)

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    hook = net.layers[1].register_forward_hook(fail)  # when the first unit has told
    with pytest.raises(RuntimeError, match="out of memory"):
        observed(IMAGES)
    hook.remove()
    assert observed._seen.means is None
    assert_same(observed(IMAGES), wanted)


def between_the_stages(net: SKNet, then: Callable[[], object]) -> None:
    """Have every pass do something when its first unit has told and its second one has not."""
    net.layers[1].register_forward_pre_hook(lambda *_: (then(), None)[1])


def test_two_threads_at_once_get_their_own() -> None:
    net = tiny()
    observed = Observed(net).eval()
    batches = [IMAGES[:1], IMAGES[1:].flip(3)]
    with torch.no_grad():
        wanted = [observed(batch) for batch in batches]
    barrier = threading.Barrier(2, timeout=30)
    between_the_stages(net, barrier.wait)  # both are half way before either goes on

    def run(batch: Tensor) -> Outputs:
        with torch.no_grad():  # which counts for the thread alone
            found: Outputs = observed(batch)
        return found

    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            for found, alone in zip(pool.map(run, batches), wanted, strict=True):
                assert_same(found, alone)


@torch.no_grad()
def test_the_bare_network_in_another_thread_does_not_get_in() -> None:
    net = tiny()
    observed = Observed(net).eval()
    wanted = observed(IMAGES)
    calls: list[threading.Thread] = []

    def bare() -> None:
        if calls:  # the pass of the other thread comes by here too
            return
        other = threading.Thread(target=lambda: net(IMAGES.flip(0)))
        calls.append(other)
        other.start()
        other.join(30)

    between_the_stages(net, bare)
    assert_same(observed(IMAGES), wanted)
    assert len(calls) == 1
    assert not calls[0].is_alive()


@torch.no_grad()
def test_a_copy_is_observed_for_itself() -> None:
    observed = Observed(tiny()).eval()
    wanted = observed(IMAGES)
    other = copy.deepcopy(observed)
    assert_same(other(IMAGES), wanted)
    for _, _, unit in units(other.net):
        unit.attn.fc_select.weight.neg_()
    changed = other(IMAGES)
    assert float((changed[1] - wanted[1]).abs().max()) > 0.01
    assert_same(observed(IMAGES), wanted)

    between_the_stages(observed.net, lambda: other(IMAGES))  # within a pass of the first one, in the same thread
    assert_same(observed(IMAGES), wanted)
    assert_same(other(IMAGES), changed)
