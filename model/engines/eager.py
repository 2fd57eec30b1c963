"""The reference engine: PyTorch, one operator after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from model.complexity import count_macs, count_parameters
from model.engines import proof
from model.engines.base import Outputs
from model.engines.failure import failure
from model.engines.inputs import exact_float32, normalise
from model.engines.outputs import head_of, outputs
from model.errors import EngineError
from model.observed import Observed
from model.types import Choice

if TYPE_CHECKING:
    from model.engines.base import Batch, Plan


class EagerEngine:
    """`SKNet` as it is written, in the placement's precision."""

    choice = Choice("eager", "the reference implementation, PyTorch operator by operator")
    streams = Choice("1", "one call uses every thread")

    def __init__(self, plan: Plan) -> None:
        self.placement = plan.placement
        if self.placement.dtype.value == "int8":
            raise EngineError("engine 'eager' computes float32 or bfloat16, not int8")
        self.batch_size = plan.batch_size or 8
        # One pool of threads serves the whole process, so the last model loaded decides; all ask for the same.
        torch.set_num_threads(int(self.placement.threads.value))
        net = plan.network()
        self.head = head_of(net)
        observed = Observed(net).eval()
        self._spec = plan.spec
        self.parameters = count_parameters(net)
        self.gmacs = count_macs(net, self._spec.size) / 1e9
        self._device = torch.device(self.placement.device.value)
        self._dtype = getattr(torch, self.placement.dtype.value)
        itself = self._device.type == "cpu" and self._dtype == torch.float32
        self.reference = None if itself else proof.reference(observed, self._spec)
        exact_float32(self._device)
        try:
            self._net: Observed | None = observed.to(self._device, self._dtype).to(memory_format=torch.channels_last)
        except RuntimeError as error:  # no memory left on the device, or the device is lost
            raise EngineError(f"the network cannot be placed on {self._device} ({type(error).__name__})") from error

    def run(self, batch: Batch, *, alone: bool = False, features: bool = False) -> Outputs:
        net = self._net  # read once: another thread may close the engine at any time
        if net is None:
            raise EngineError("the engine is closed")
        try:
            with torch.inference_mode():
                x = normalise(torch.from_numpy(batch).to(self._device), self._spec)
                x = x.to(self._dtype, memory_format=torch.channels_last)
                return outputs(net(x), features=features)
        except RuntimeError as error:  # torch's own: out of memory, a lost device
            raise failure(error, len(batch)) from error

    def close(self) -> None:
        self._net = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
