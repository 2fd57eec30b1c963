"""The way of a batch through slots, padding and replays, on a processor that plays the device; `test_gpu` has the real one."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from model.engines import cuda_graphs, proof
from model.engines.base import Outputs
from model.engines.cuda_graphs import CudaGraphs
from model.engines.inputs import normalise
from model.engines.outputs import outputs
from model.errors import EngineError
from model.types import PreprocessSpec
from tests.model.small import observed

SPEC = PreprocessSpec(size=(32, 40))
SHOWN = np.concatenate([np.roll(proof.images(SPEC.size), shift, 2) for shift in range(0, 40, 2)])  # 80 different images


class Device:
    """CUDA graphs and streams as far as they are used: a replay computes from the captured input into the captured output."""

    def __init__(self) -> None:
        self.capturing: Graph | None = None
        self.memory_for = 1024  # images
        self.replayed: list[int] = []
        self.fail_next = False

    def compiled(self, net: nn.Module, example: Tensor) -> Callable[[Tensor], Sequence[Tensor]]:
        if len(example) > self.memory_for:
            raise torch.OutOfMemoryError("CUDA out of memory")

        def run(x: Tensor) -> Sequence[Tensor]:
            assert x.shape == example.shape
            found: tuple[Tensor, ...] = net(x)
            if self.capturing:
                self.capturing.body = (net, x, found)
            return found

        return run

    @contextmanager
    def graph(self, graph: Graph, **how: Any) -> Iterator[None]:
        assert how["capture_error_mode"] == "thread_local"
        graph.device, self.capturing = self, graph
        yield
        self.capturing = None


class Graph:
    body: tuple[nn.Module, Tensor, tuple[Tensor, ...]]
    device: Device

    def replay(self) -> None:
        if self.device.fail_next:
            self.device.fail_next = False
            raise RuntimeError("CUDA error: unspecified launch failure")
        net, pixels, found = self.body
        self.device.replayed.append(len(pixels))
        for place, made in zip(found, net(pixels), strict=True):
            place.copy_(made)


class Clock:
    """A stream or an event: everything has happened already."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def synchronize(self) -> None: ...
    def record(self) -> None: ...
    def wait_event(self, _event: Clock) -> None: ...


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(cuda_graphs, "_spare", defaultdict(list))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory=False, **how: empty(*size, **how))
    for name in ("Stream", "Event"):
        monkeypatch.setattr(torch.cuda, name, Clock)
    for name in ("stream", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", device.graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(cuda_graphs, "compiled", device.compiled)
    return device


def made(limit: int, in_flight: int = 0) -> CudaGraphs:
    net = observed().requires_grad_(False).to(memory_format=torch.channels_last)
    return CudaGraphs(net, SPEC, torch.device("cpu"), torch.float32, limit, in_flight)


def expected(pixels: npt.NDArray[np.uint8]) -> Outputs:
    with torch.no_grad():
        return outputs(observed()(normalise(torch.from_numpy(pixels), SPEC)), features=True)


def assert_equal(found: Outputs, wanted: Outputs, *, features: bool = False) -> None:
    """The same rows, and features only where they were asked for."""
    assert (found.features is not None) == features
    for here, there in zip(found, wanted, strict=True):
        if here is not None:
            assert there is not None
            assert here.shape == there.shape
            assert here.dtype == np.float32
            np.testing.assert_allclose(here, there, rtol=0, atol=1e-5)


def test_any_number_of_images_is_padded_and_cut(device: Device) -> None:
    runner = made(8)
    assert runner.batch_size == 8
    assert (runner.streams.value, made(1, in_flight=3).streams.value) == ("2", "3")
    for count, sizes in ((8, [8]), (1, [1]), (3, [4]), (5, [8]), (19, [8, 8, 4])):
        for features in (False, True):
            device.replayed.clear()
            found = runner.run(SHOWN[:count], features=features)
            assert device.replayed == sizes
            assert_equal(found, expected(SHOWN[:count]), features=features)


def test_rows_of_padding_are_not_given_and_change_nothing(device: Device) -> None:
    runner = made(4)
    full = runner.run(SHOWN[40:44], features=True)  # leaves its pixels and its answers where the next ones go
    assert_equal(runner.run(SHOWN[:3], features=True), expected(SHOWN[:3]), features=True)
    assert device.replayed == [4, 4]
    kept = [each.copy() for each in full if each is not None]
    runner.run(SHOWN[50:54], features=True)
    for before, after in zip(kept, full, strict=True):  # what was given is the caller's own
        assert after is not None
        np.testing.assert_array_equal(after, before)


def test_normalised_images_take_the_other_way(device: Device) -> None:
    runner = made(2)
    prepared = normalise(torch.from_numpy(SHOWN[:3]), SPEC).numpy()
    for features in (False, True):
        assert_equal(runner.run(prepared, features=features), expected(SHOWN[:3]), features=features)
    assert device.replayed == []


def test_what_the_device_has_no_memory_for_is_left_out(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    device.memory_for = 5
    runner = made(16)
    assert runner.batch_size == 4
    assert [record.getMessage() for record in caplog.records] == [
        "no memory on cpu for batches of 16",
        "no memory on cpu for batches of 8",
    ]
    assert_equal(runner.run(SHOWN[:9]), expected(SHOWN[:9]))
    device.memory_for = 0
    with pytest.raises(EngineError, match="no memory for a single image"):
        made(2)


def test_threads_get_their_own_rows(device: Device) -> None:
    runner, wanted, wrong = made(4), expected(SHOWN), list[int]()
    assert wanted.features is not None
    maps = wanted.features

    def work(offset: int) -> None:
        for i in range(offset, 60, 4):
            count = i % 7 + 1
            found, span = runner.run(SHOWN[i : i + count], features=i % 3 == 0), slice(i, i + count)
            pairs = [(found.logits, wanted.logits), (found.attention, wanted.attention)]
            if found.features is not None:
                pairs.append((found.features, maps))
            if not all(np.allclose(here, there[span], rtol=0, atol=1e-5) for here, there in pairs):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(device.replayed) >= 60


def test_a_failure_gives_its_slot_back(device: Device) -> None:
    runner = made(2)
    for _ in range(5):  # more than there are slots
        device.fail_next = True
        with pytest.raises(RuntimeError, match="launch failure"):
            runner.run(SHOWN[:2])
    assert_equal(runner.run(SHOWN[:2]), expected(SHOWN[:2]))


def test_streams_go_from_engine_to_engine_and_never_to_two_at_once(device: Device) -> None:
    first, second = made(1), made(1)
    in_use = {*map(id, first._streams), *map(id, second._streams)}
    assert len(in_use) == 6
    kept = list(first._streams)
    first.close()
    first.close()  # twice is once
    assert {*map(id, made(1)._streams)} == {*map(id, kept)}
    assert not {*map(id, made(1)._streams)} & in_use


def test_pixels_of_another_size_are_refused(device: Device) -> None:
    runner = made(2)
    for shape in ((1, 40, 32, 3), (1, 1, 1, 3)):
        with pytest.raises(EngineError, match=r"compiled for \(32, 40, 3\)"):
            runner.run(np.zeros(shape, np.uint8))
