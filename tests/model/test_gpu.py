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
from model.errors import OutOfMemory
from model.graphs import Graph
from model.manager import LoadRequest, load
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
    """Of `count` images in one call, each against its own reference."""
    assert engine.reference is not None
    images, index = many(count)
    logits = engine.run(images)
    assert logits.shape == (count, engine.reference.shape[1])
    return proof.deviation(logits, engine.reference[index])


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
    away = proof.deviation(engine.run(proof.images(checkpoint.preprocess.size)), engine.reference)
    assert 1e-5 < away <= proof.BOUNDS["bfloat16"]
    engine.close()


@pytest.mark.parametrize("count", [1, 3, 8, 64, 70])
def test_the_compiled_engine_is_the_same_network_for_any_number_of_images(compiled: Engine, count: int) -> None:
    assert (compiled.streams.value, compiled.batch_size) == ("2", 64)
    assert deviation(compiled, count) <= proof.BOUNDS["bfloat16"]


def test_the_compiled_engine_in_float32_is_exact() -> None:
    engine = engines.make("compile", plan(partial(lively, "skresnet18"), "float32", batch_size=2))
    assert deviation(engine, 3) <= 1e-4
    engine.close()


def test_two_threads_at_once_get_their_own_rows(compiled: Engine) -> None:
    images, _ = many(64)
    images = np.stack([np.roll(image, i, 1) for i, image in enumerate(images)])
    wanted = compiled.run(images)
    far: list[float] = []

    def work(offset: int) -> None:
        for i in range(offset, 200, 2):
            start, count = i % 48, i % 13 + 1
            far.append(proof.deviation(compiled.run(images[start : start + count]), wanted[start : start + count]))

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(far) == 200
    assert max(far) <= proof.BOUNDS["bfloat16"]  # sizes of batches take different kernels; another's rows are far off


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
