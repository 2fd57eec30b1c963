"""The networks on a CUDA device: what the processor gives, and no memory kept. Skipped where there is none."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model import engines
from model.checkpoint import build_network, resolve
from model.device import place
from model.engines import proof
from model.engines.base import Engine, Plan
from model.engines.inputs import normalise
from model.errors import OutOfMemory
from model.graphs import Graph
from model.manager import LoadRequest, load
from model.observed import Observed
from model.registry import VARIANTS
from model.sknet import SKNet, build
from model.types import PreprocessSpec
from tests.images import encode, photograph

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch finds none"),
    pytest.mark.timeout(900),  # each size of batch is compiled
]

SPEC = PreprocessSpec(size=(96, 96))
# Relative deviation of bfloat16's last feature maps, which no pooling averages; another image's are off by more than this.
MAPS = 0.1


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


def plan(network: Callable[[], SKNet], precision: str, spec: PreprocessSpec = SPEC, batch_size: int = 0) -> Plan:
    def no_graph() -> Graph:
        raise AssertionError("these engines are made from the network")

    return Plan(network, no_graph, spec, place("cuda", precision), batch_size=batch_size)


def memory() -> int:
    """Bytes of tensors on the device."""
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


def many(count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    """The images of the proof over and over, and which is which."""
    index = np.arange(count) % proof.COUNT
    return proof.images(SPEC.size)[index], index


def deviation(engine: Engine, count: int) -> float:
    """Of `count` images in one call, each against its own reference; attention within its bound, as loading asks for."""
    assert engine.reference is not None
    images, index = many(count)
    logits, attention, features = engine.run(images)
    assert logits.shape == (count, engine.reference.logits.shape[1])
    assert features is None
    apart = proof.attention_deviation(attention, engine.reference.attention[index])
    assert apart <= proof.ATTENTION_BOUNDS[engine.placement.dtype.value]
    return proof.deviation(logits, engine.reference.logits[index])


@pytest.fixture(scope="module")
def compiled() -> Iterator[Engine]:
    engine = engines.make("compile", plan(partial(lively, "skresnet18"), "bfloat16"))
    yield engine
    engine.close()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_gives_the_processors_logits_in_float32(name: str) -> None:
    engine = engines.make("eager", plan(partial(lively, name), "float32"))
    assert deviation(engine, proof.COUNT) <= 1e-4  # TF32 would be off by 1e-3
    engine.close()


def test_bfloat16_is_the_same_network() -> None:
    checkpoint = resolve("bundled:cifar10")
    engine = engines.make("eager", plan(partial(build_network, checkpoint), "bfloat16", checkpoint.preprocess))
    assert engine.reference is not None
    found = engine.run(proof.images(checkpoint.preprocess.size))
    assert 1e-5 < proof.deviation(found.logits, engine.reference.logits) <= proof.BOUNDS["bfloat16"]
    apart = proof.attention_deviation(found.attention, engine.reference.attention)
    assert 1e-6 < apart <= proof.ATTENTION_BOUNDS["bfloat16"]
    engine.close()


@pytest.mark.parametrize("count", [1, 3, 8, 64, 70])
def test_the_compiled_engine_is_the_same_network_for_any_number_of_images(compiled: Engine, count: int) -> None:
    assert (compiled.streams.value, compiled.batch_size) == ("2", 64)
    assert deviation(compiled, count) <= proof.BOUNDS["bfloat16"]


def test_the_compiled_engine_in_float32_is_exact() -> None:
    engine = engines.make("compile", plan(partial(lively, "skresnet18"), "float32", batch_size=2))
    assert deviation(engine, 3) <= 1e-4
    pixels, _ = many(3)
    found = engine.run(pixels, features=True)
    with torch.inference_mode():
        seen = Observed(lively("skresnet18")).eval()(normalise(torch.from_numpy(pixels), SPEC))
    for here, there in zip(found, seen, strict=True):
        assert here is not None
        assert here.shape == there.shape
        assert proof.deviation(here, there.numpy()) <= 1e-4
    np.testing.assert_array_equal(engine.head.weight, lively("skresnet18").fc.weight.detach().numpy())
    engine.close()


@pytest.mark.parametrize("count", [1, 3, 7, 70])
def test_features_come_where_asked_and_nothing_of_the_padding(compiled: Engine, count: int) -> None:
    images, _ = many(70)
    images = np.stack([np.roll(image, i, 1) for i, image in enumerate(images)])
    whole = compiled.run(images[::-1].copy(), features=True)  # leaves other rows where the next ones go
    before = [each.copy() for each in whole if each is not None]
    plain, full = compiled.run(images[:count]), compiled.run(images[:count], features=True)
    assert plain.features is None
    assert proof.deviation(plain.logits, full.logits) <= proof.BOUNDS["bfloat16"]
    assert whole.features is not None
    assert full.features is not None
    assert proof.deviation(full.logits, whole.logits[::-1][:count]) <= proof.BOUNDS["bfloat16"]
    apart = proof.attention_deviation(full.attention, whole.attention[::-1][:count])
    assert apart <= proof.ATTENTION_BOUNDS["bfloat16"]
    assert proof.deviation(full.features, whole.features[::-1][:count]) <= MAPS
    pooled = full.features.mean((2, 3)) @ compiled.head.weight.T + compiled.head.bias
    assert proof.deviation(pooled, full.logits) <= proof.BOUNDS["bfloat16"]
    for kept, now in zip(before, whole, strict=True):  # what was given is the caller's own
        assert now is not None
        np.testing.assert_array_equal(now, kept)


def test_normalised_images_tell_the_same(compiled: Engine) -> None:
    pixels, _ = many(4)
    prepared = normalise(torch.from_numpy(pixels), SPEC).numpy()
    assert compiled.run(prepared).features is None
    found, wanted = compiled.run(prepared, features=True), compiled.run(pixels, features=True)
    assert found.features is not None
    assert wanted.features is not None
    assert proof.deviation(found.logits, wanted.logits) <= proof.BOUNDS["bfloat16"]
    assert proof.attention_deviation(found.attention, wanted.attention) <= proof.ATTENTION_BOUNDS["bfloat16"]
    assert proof.deviation(found.features, wanted.features) <= MAPS


def test_two_threads_at_once_get_their_own_rows(compiled: Engine) -> None:
    images, _ = many(64)
    images = np.stack([np.roll(image, i, 1) for i, image in enumerate(images)])
    wanted = compiled.run(images, features=True)
    wanted_maps = wanted.features
    assert wanted_maps is not None
    far, apart, maps = list[float](), list[float](), list[float]()

    def work(offset: int) -> None:
        for i in range(offset, 200, 2):
            start, count = i % 48, i % 13 + 1
            rows, found = slice(start, start + count), compiled.run(images[start : start + count], features=i % 3 == 0)
            far.append(proof.deviation(found.logits, wanted.logits[rows]))
            apart.append(proof.attention_deviation(found.attention, wanted.attention[rows]))
            if found.features is not None:
                maps.append(proof.deviation(found.features, wanted_maps[rows]))

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(far), len(apart), len(maps)) == (200, 200, 67)
    assert max(far) <= proof.BOUNDS["bfloat16"]  # sizes of batches take different kernels; another's rows are far off
    assert max(apart) <= proof.ATTENTION_BOUNDS["bfloat16"]
    assert max(maps) <= MAPS


@pytest.mark.parametrize("name", ["eager", "compile"])
def test_a_batch_that_is_too_large_leaves_the_engine_as_it_was(name: str) -> None:
    engine = engines.make(name, plan(partial(lively, "skresnet18"), "float32", batch_size=2))
    deviation(engine, 2)
    engine.run(np.zeros((2, 3, *SPEC.size), np.float32))
    before = memory()  # with the work space that libraries keep from the first run on
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(max(0, free - 2**29), dtype=torch.uint8, device="cuda")  # all but 512 MiB
    batch = np.zeros((4096, 3, *SPEC.size), np.float32)  # its first feature map alone has 2.4 GB
    for _ in range(2):
        with pytest.raises(OutOfMemory, match="batch of 4096"):
            engine.run(batch)
    assert deviation(engine, 2) <= 1e-4
    del taken
    assert memory() == before
    engine.close()


@pytest.mark.parametrize("name", ["eager", "compile"])
def test_a_closed_engine_leaves_no_memory_behind(name: str) -> None:
    def make_run_close() -> int:
        engine = engines.make(name, plan(partial(lively, "skresnet18"), "bfloat16", batch_size=2))
        held = memory()
        engine.run(many(2)[0])
        engine.close()
        assert memory() < held
        return memory()

    first = make_run_close()  # the libraries keep their work space from the first run on
    assert [make_run_close() for _ in range(3)] == [first] * 3


def test_a_model_is_swapped_for_another_while_it_serves(compiled: Engine) -> None:
    """The next engine is compiled and captured while the one before runs in other threads."""
    stop, failures = threading.Event(), list[BaseException]()

    def serve() -> None:
        try:
            while not stop.is_set():
                assert deviation(compiled, 5) <= proof.BOUNDS["bfloat16"]
        except BaseException as error:  # noqa: BLE001 - shown below, whatever it was
            failures.append(error)

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    engine = engines.make("compile", plan(partial(lively, "sknet26"), "bfloat16", batch_size=4))
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert deviation(engine, 4) <= proof.BOUNDS["bfloat16"]
    engine.close()
    assert deviation(compiled, 4) <= proof.BOUNDS["bfloat16"]


def test_a_closed_model_leaves_no_memory_behind() -> None:
    picture = encode(photograph("chelsea"))

    def load_run_close() -> int:
        model = load(LoadRequest(checkpoint="bundled:cifar10", device="cuda", engine="eager"))
        assert model.info.device.value == "cuda:0"
        loaded = torch.cuda.memory_allocated()
        model.run([model.prepare(picture)] * 4)
        model.close()
        gc.collect()
        assert torch.cuda.memory_allocated() < loaded
        return torch.cuda.memory_allocated()

    first = load_run_close()  # the libraries keep their work space from the first run on
    assert [load_run_close() for _ in range(3)] == [first] * 3
