"""The compiled engine: TorchInductor, with CUDA graphs on a GPU. The first start takes seconds to minutes a size of batch."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from model.complexity import count_macs, count_parameters
from model.engines import inductor, proof
from model.engines.base import Outputs, joined
from model.engines.batching import BatchSizes
from model.engines.cuda_graphs import DEFAULT_BATCH, CudaGraphs
from model.engines.failure import failure
from model.engines.inputs import exact_float32, normalise
from model.engines.outputs import head_of, outputs
from model.errors import EngineError
from model.observed import Observed
from model.types import Choice, PreprocessSpec

if TYPE_CHECKING:
    from model.engines.base import Batch, Plan


PRECISIONS = ("float32", "bfloat16")


class _Runner(Protocol):
    streams: Choice
    batch_size: int

    def run(self, batch: Batch, *, features: bool) -> Outputs: ...
    def close(self) -> None: ...


class CompileEngine:
    """`SKNet` compiled ahead for fixed sizes of batches, in the placement's precision.

    Raises:
        EngineError: no compiler here, or the network cannot be compiled or placed.
    """

    choice = Choice("compile", "compiled by TorchInductor for this machine")

    def __init__(self, plan: Plan) -> None:
        self.placement = plan.placement
        device = torch.device(plan.placement.device.value)
        precision = plan.placement.dtype.value
        if precision not in PRECISIONS:
            raise EngineError(f"the compile engine computes in {' or '.join(PRECISIONS)}, not in {precision}")
        dtype: torch.dtype = getattr(torch, precision)
        inductor.check(device.type)
        # Kernels for the processor are compiled for this number of threads.
        torch.set_num_threads(int(self.placement.threads.value))
        net = plan.network().requires_grad_(False)
        self.head = head_of(net)
        observed = Observed(net).eval()
        self.parameters = count_parameters(net)
        self.gmacs = count_macs(net, plan.spec.size) / 1e9
        self.reference = proof.reference(observed, plan.spec)
        exact_float32(device)
        try:
            observed = observed.to(device, dtype).to(memory_format=torch.channels_last)
            self._runner: _Runner | None = (
                CudaGraphs(observed, plan.spec, device, dtype, plan.batch_size or DEFAULT_BATCH, plan.streams)
                if device.type == "cuda"
                else OnProcessor(observed, plan.spec, dtype, plan.batch_size or 1)
            )
        except RuntimeError as error:  # no memory left on the device, or the device is lost
            raise EngineError(f"the network cannot be placed on {device} ({type(error).__name__})") from error
        self.streams = self._runner.streams
        self.batch_size = self._runner.batch_size

    def run(self, batch: Batch, *, alone: bool = False, features: bool = False) -> Outputs:
        runner = self._runner  # read once: another thread may close the engine at any time
        if runner is None:
            raise EngineError("the engine is closed")
        try:
            return runner.run(batch, features=features)
        except RuntimeError as error:
            raise failure(error, len(batch)) from error

    def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        runner.close()
        del runner
        gc.collect()  # graphs of operators are full of circles
        if self.placement.device.value.startswith("cuda"):
            torch.cuda.empty_cache()


class OnProcessor:
    """`net`, in evaluation mode in `dtype` on the processor, compiled for batches of 1 and of `batch_size`."""

    streams = Choice("1", "one call uses every thread")

    def __init__(self, net: Observed, spec: PreprocessSpec, dtype: torch.dtype, batch_size: int) -> None:
        self._spec, self._dtype, self.batch_size = spec, dtype, batch_size
        self._sizes = BatchSizes({1, batch_size})
        self._compiled = {size: inductor.compiled(net, self._example(size)) for size in self._sizes.sizes}

    def _example(self, size: int) -> torch.Tensor:
        return torch.zeros((size, 3, *self._spec.size), dtype=self._dtype).to(memory_format=torch.channels_last)

    def run(self, batch: Batch, *, features: bool) -> Outputs:
        """As `Engine.run`, but for torch's own errors.

        Raises:
            EngineError: images of another size.
        """
        wanted = (*self._spec.size, 3) if batch.dtype == np.uint8 else (3, *self._spec.size)
        if batch.shape[1:] != wanted:
            raise EngineError(f"images of shape {batch.shape[1:]}: this engine was compiled for {wanted}")
        parts = []
        with torch.no_grad():
            for start, stop, size in self._sizes.exact(len(batch)):
                x = normalise(torch.from_numpy(batch[start:stop]), self._spec)
                x = x.to(self._dtype, memory_format=torch.channels_last)
                parts.append(outputs(self._compiled[size](x), features=features))
        return joined(parts)

    def close(self) -> None:
        """Nothing but memory is held, and that goes with the last reference."""
