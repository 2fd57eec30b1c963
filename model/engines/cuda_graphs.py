"""A network on a CUDA device: uint8 pixels in, logits out, one CUDA graph for each size of batch. No checkpoints, no choices.

The graphs are captured by hand over buffers that stay where they are. Inductor's own ("reduce-overhead") are kept by thread: a
scheduler's second thread would record everything anew, inside a request.

What is in flight: while one batch is computed, another is written to pinned memory and copied to the device, each in a slot
of its own. One stream computes, in the order of arrival, because the graphs share their work space.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.engines.base import Batch
from model.engines.batching import BatchSizes, Slots
from model.engines.inductor import compiled
from model.errors import EngineError, OutOfMemory
from model.types import Choice, PreprocessSpec

logger = logging.getLogger("sknet.engine")

DEFAULT_BATCH = 64
IN_FLIGHT = 2
_one_capture = threading.Lock()  # CUDA allows no second one in a process meanwhile
# Streams of closed engines, for the next ones. torch hands out 32 a device in a circle: after a few swaps a new one would be one
# that serves already, and copies would fall into its captures. cuBLAS keeps a work space for each stream that it has seen, too.
_spare: defaultdict[torch.device, list[torch.cuda.Stream]] = defaultdict(list)


class Entrance(nn.Module):
    """uint8 pixels (B, H, W, 3) -> float32 logits (B, num_classes) of a network that computes in `dtype`.

    The constants are buffers: made inside the pass, as in `model.engines.inputs`, they would be copied from the host in it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, spec: PreprocessSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.net = net
        self.dtype = dtype
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        logits: Tensor = self.net(x.to(self.dtype, memory_format=torch.channels_last)).float()
        return logits


def _stream(device: torch.device) -> torch.cuda.Stream:
    try:
        return _spare[device].pop()
    except IndexError:
        return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class _Captured:
    graph: torch.cuda.CUDAGraph
    rows: Tensor  # (size, num_classes) float32, on the device: where each replay writes
    run: Callable[[Tensor], Tensor]  # the graph calls its kernels and reads its constants: it must live as long


class _Slot:
    """Buffers of one batch in flight, the host's pinned: only from there a copy runs beside the computation."""

    def __init__(self, limit: int, size: tuple[int, int], classes: int, device: torch.device) -> None:
        shape = (limit, *size, 3)
        self.pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.arriving = torch.empty(shape, dtype=torch.uint8, device=device)
        self.rows = torch.empty((limit, classes), dtype=torch.float32, pin_memory=True)
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
        self, net: nn.Module, spec: PreprocessSpec, device: torch.device, dtype: torch.dtype, limit: int, in_flight: int = 0
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
            self.classes: int = self._graphs[self.batch_size].rows.shape[1]
            slots = [_Slot(self.batch_size, self._size, self.classes, device) for _ in range(in_flight or IN_FLIGHT)]
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
                rows = run(pixels)
        return _Captured(graph, rows, run)

    def run(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Images as `model.engines.base.Batch` -> logits (B, num_classes).

        Raises:
            EngineError: pixels of another size.
            RuntimeError: the device failed, or has no memory.
        """
        if batch.dtype != np.uint8:
            return self._one_by_one(batch)
        if batch.shape[1:] != (*self._size, 3):  # numpy would stretch some of them to fit
            raise EngineError(f"images of shape {batch.shape[1:]}: this engine was compiled for {(*self._size, 3)}")
        out = np.empty((len(batch), self.classes), np.float32)
        for start, stop, size in self._sizes.padded(len(batch)):
            self._replay(batch[start:stop], self._graphs[size], out[start:stop])
        return out

    def close(self) -> None:
        """Give the streams to the next engine; the memory goes with the last reference to this."""
        _spare[self._device] += self._streams
        self._streams = []

    def _replay(self, batch: Batch, captured: _Captured, out: npt.NDArray[np.float32]) -> None:
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
                slot.rows[:n].copy_(captured.rows[:n], non_blocking=True)
                slot.done.record()
            slot.done.synchronize()
            np.copyto(out, slot.rows[:n].numpy())

    def _one_by_one(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Normalised images, which tensor protocols bring and nobody else: operator by operator, with the same weights."""
        with self._order, torch.inference_mode(), torch.cuda.device(self._device), torch.cuda.stream(self._compute):
            x = torch.from_numpy(batch).to(self._device, self._dtype, memory_format=torch.channels_last)
            rows: npt.NDArray[np.float32] = self._net(x).float().cpu().numpy()
        return rows
