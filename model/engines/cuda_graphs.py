"""A network on a CUDA device: uint8 pixels in, outputs out, one CUDA graph for each size of batch. No checkpoints, no choices.

The graphs are captured by hand over buffers that stay where they are. Inductor's own ("reduce-overhead") are kept by thread: a
scheduler's second thread would record everything anew, inside a request.

What is in flight: while one batch is computed, another is written to pinned memory and copied to the device, each in a slot
of its own. One stream computes, in the order of arrival, because the graphs share their work space.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.engines.base import Batch, Outputs, joined
from model.engines.batching import BatchSizes, Slots
from model.engines.inductor import compiled
from model.engines.outputs import outputs
from model.errors import EngineError, OutOfMemory
from model.observed import Observed
from model.types import Choice, PreprocessSpec

logger = logging.getLogger("sknet.engine")

DEFAULT_BATCH = 64
IN_FLIGHT = 2
_one_capture = threading.Lock()  # CUDA allows no second one in a process meanwhile
# Streams of closed engines, for the next ones. torch hands out 32 a device in a circle: after a few swaps a new one would be one
# that serves already, and copies would fall into its captures. cuBLAS keeps a work space for each stream that it has seen, too.
_spare: defaultdict[torch.device, list[torch.cuda.Stream]] = defaultdict(list)


class Entrance(nn.Module):
    """uint8 pixels (B, H, W, 3) -> what `model.observed` gives, float32, of a network that computes in `dtype`.

    The constants are buffers: made inside the pass, as in `model.engines.inputs`, they would be copied from the host in it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: Observed, spec: PreprocessSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.net = net
        self.dtype = dtype
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None])

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        x = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        found = self.net(x.to(self.dtype, memory_format=torch.channels_last))
        return tuple(each.float().contiguous() for each in found)


def _stream(device: torch.device) -> torch.cuda.Stream:
    try:
        return _spare[device].pop()
    except IndexError:
        return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class _Captured:
    graph: torch.cuda.CUDAGraph
    found: tuple[Tensor, ...]  # logits, attention, features; float32 on the device: where each replay writes
    run: Callable[[Tensor], Sequence[Tensor]]  # the graph calls its kernels and reads its constants: it must live as long


class _Slot:
    """Buffers of one batch in flight, the host's pinned: only from there a copy runs beside the computation."""

    def __init__(self, limit: int, size: tuple[int, int], found: Sequence[Tensor], device: torch.device) -> None:
        shape = (limit, *size, 3)
        self.pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.arriving = torch.empty(shape, dtype=torch.uint8, device=device)
        self.found = tuple(torch.empty(each.shape, dtype=torch.float32, pin_memory=True) for each in found)
        self.copying = _stream(device)
        self.arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        # Blocking: a thread that spins while it waits would take a processor from the decoding of images.
        self.done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]


class CudaGraphs:
    """`net`, in evaluation mode on `device` in `dtype`, compiled and captured for batches of 1, 2, 4, ... up to `limit`.

    Raises:
        OutOfMemory: no memory for a single image; for larger batches, `batch_size` is what there was memory for.
        EngineError: it cannot be compiled.
        RuntimeError: the device failed.
    """

    def __init__(
        self, net: Observed, spec: PreprocessSpec, device: torch.device, dtype: torch.dtype, limit: int, in_flight: int = 0
    ) -> None:
        reason = "asked for" if in_flight else "one batch is copied to the device while another is computed"
        self.streams = Choice(str(in_flight or IN_FLIGHT), reason)
        self._net, self._size, self._device, self._dtype = net, spec.size, device, dtype
        self._order = threading.Lock()
        with torch.cuda.device(device):
            self._compute = _stream(device)
            self._graphs = self._capture_all(Entrance(net, spec, dtype).eval().to(device), BatchSizes.doubling(limit))
            self._sizes = BatchSizes(self._graphs)
            self.batch_size = self._sizes.largest
            largest = self._graphs[self.batch_size].found
            slots = [_Slot(self.batch_size, self._size, largest, device) for _ in range(in_flight or IN_FLIGHT)]
        self._slots = Slots(slots)
        self._streams = [self._compute, *(slot.copying for slot in slots)]

    def _capture_all(self, entrance: Entrance, sizes: BatchSizes) -> dict[int, _Captured]:
        graphs: dict[int, _Captured] = {}
        pool = torch.cuda.graph_pool_handle()
        for size in reversed(sizes.sizes):  # the largest first: the smaller find their memory in its pool
            try:
                if not graphs:
                    self._pixels = torch.zeros((size, *self._size, 3), dtype=torch.uint8, device=self._device)
                graphs[size] = self._capture(entrance, self._pixels[:size], pool)
            except (OutOfMemory, torch.OutOfMemoryError):
                logger.warning("no memory on %s for batches of %d", self._device, size)
                torch.cuda.empty_cache()
        if not graphs:
            raise OutOfMemory(f"{self._device} has no memory for a single image")
        return graphs

    def _capture(self, entrance: Entrance, pixels: Tensor, pool: Any) -> _Captured:
        run = compiled(entrance, pixels)
        torch.cuda.synchronize(self._device)  # constants were made on another stream
        with _one_capture, torch.no_grad(), torch.cuda.stream(self._compute):
            for _ in range(2):  # what libraries set up at the first call must not fall into the capture
                run(pixels)
            self._compute.synchronize()
            graph = torch.cuda.CUDAGraph()
            # thread_local: a model that serves in other threads meanwhile may allocate memory without breaking the capture.
            with torch.cuda.graph(graph, pool=pool, stream=self._compute, capture_error_mode="thread_local"):
                found = tuple(run(pixels))
        return _Captured(graph, found, run)

    def run(self, batch: Batch, *, features: bool = False) -> Outputs:
        """As `model.engines.base.Engine.run`.

        Raises:
            EngineError: pixels of another size.
            RuntimeError: the device failed, or has no memory.
        """
        if batch.dtype != np.uint8:
            return self._one_by_one(batch, features)
        if batch.shape[1:] != (*self._size, 3):  # numpy would stretch some of them to fit
            raise EngineError(f"images of shape {batch.shape[1:]}: this engine was compiled for {(*self._size, 3)}")
        parts = self._sizes.padded(len(batch))
        return joined([self._replay(batch[start:stop], self._graphs[size], features) for start, stop, size in parts])

    def close(self) -> None:
        """Give the streams to the next engine; the memory goes with the last reference to this."""
        _spare[self._device] += self._streams
        self._streams = []

    def _replay(self, batch: Batch, captured: _Captured, features: bool) -> Outputs:
        wanted = 3 if features else 2  # the features of a batch are tens of megabytes, and hardly ever wanted
        n = len(batch)  # rows behind it hold pixels of earlier batches; rows do not see each other, and theirs are not read
        with self._slots.hold() as slot, torch.cuda.device(self._device):
            slot.copying.synchronize()  # nothing is under way in it, unless its last holder failed in the middle
            slot.done.synchronize()
            np.copyto(slot.pixels[:n].numpy(), batch)
            with torch.cuda.stream(slot.copying):
                slot.arriving[:n].copy_(slot.pixels[:n], non_blocking=True)
                slot.arrived.record()
            with self._order, torch.cuda.stream(self._compute):
                self._compute.wait_event(slot.arrived)
                self._pixels[:n].copy_(slot.arriving[:n], non_blocking=True)
                captured.graph.replay()
                for here, there in zip(slot.found[:wanted], captured.found[:wanted], strict=True):
                    here[:n].copy_(there[:n], non_blocking=True)
                slot.done.record()
            slot.done.synchronize()
            copied = [here[:n].numpy().copy() for here in slot.found[:wanted]]
        return Outputs(copied[0], copied[1], copied[2] if features else None)

    def _one_by_one(self, batch: Batch, features: bool) -> Outputs:
        """Normalised images, which tensor protocols bring and nobody else: operator by operator, with the same weights."""
        with self._order, torch.inference_mode(), torch.cuda.device(self._device), torch.cuda.stream(self._compute):
            x = torch.from_numpy(batch).to(self._device, self._dtype, memory_format=torch.channels_last)
            return outputs(self._net(x), features=features)
