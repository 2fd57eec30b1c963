"""No memory is told apart from other failures, and the failed pass does not keep what it had."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from torch import nn

from model import engines
from model.device import place
from model.engines.base import Plan
from model.engines.failure import failure
from model.errors import EngineError, OutOfMemory
from model.graphs import Graph
from model.types import PreprocessSpec
from tests.model.small import tiny


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory", 2),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_no_memory_has_its_own_error(error: RuntimeError) -> None:
    given = failure(error, 8)
    assert isinstance(given, OutOfMemory)
    assert "batch of 8" in str(given)


def test_another_failure_is_no_lack_of_memory() -> None:
    given = failure(RuntimeError("CUDA error: an illegal memory access was encountered"), 8)
    assert type(given) is EngineError
    assert "batch of 8" in str(given)


def test_the_processors_own_allocator_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert isinstance(failure(caught.value, 1), OutOfMemory)


def test_eager_says_so_frees_the_pass_and_goes_on() -> None:
    maps: list[weakref.ref[torch.Tensor]] = []

    class Full(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            features = x * 2
            maps.append(weakref.ref(features))
            if len(x) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return features.mean((2, 3)), features.mean((2, 3))[:, None], features

    def no_graph() -> Graph:
        raise AssertionError("eager needs no graph")

    engine = engines.make("eager", Plan(tiny, no_graph, PreprocessSpec(size=(32, 40)), place("cpu", "float32", 1)))
    engine._net = Full()  # type: ignore[attr-defined]
    batch = np.ones((2, 3, 32, 40), np.float32)
    with pytest.raises(OutOfMemory, match="batch of 2") as caught:
        engine.run(batch)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)  # at hand, and yet:
    assert maps[0]() is None
    assert engine.run(batch[:1]).logits.tolist() == [[2, 2, 2]]
