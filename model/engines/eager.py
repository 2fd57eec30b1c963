"""The reference engine: PyTorch, one operator after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from model.complexity import count_macs, count_parameters
from model.errors import EngineError
from model.types import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.device import Placement
    from model.sknet import SKNet


class EagerEngine:
    """`SKNet` as it is written, in the placement's precision."""

    choice = Choice("eager", "the reference implementation, PyTorch operator by operator")

    def __init__(self, network: Callable[[], SKNet], size: tuple[int, int], placement: Placement) -> None:
        # One pool of threads serves the whole process, so the last model loaded decides; all ask for the same.
        torch.set_num_threads(int(placement.threads.value))
        net = network().eval()
        self.parameters = count_parameters(net)
        self.gmacs = count_macs(net, size) / 1e9
        self._device = torch.device(placement.device.value)
        self._dtype = getattr(torch, placement.dtype.value)
        try:
            self._net: SKNet | None = net.to(self._device, self._dtype).to(memory_format=torch.channels_last)
        except RuntimeError as error:  # no memory left on the device, or the device is lost
            raise EngineError(f"the network cannot be placed on {self._device} ({type(error).__name__})") from error

    def run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        net = self._net  # read once: another thread may close the engine at any time
        if net is None:
            raise EngineError("the engine is closed")
        try:
            with torch.inference_mode():
                x = torch.from_numpy(batch).to(self._device, self._dtype, memory_format=torch.channels_last)
                logits: npt.NDArray[np.float32] = net(x).float().cpu().numpy()
        except RuntimeError as error:  # torch's own: out of memory, a lost device
            raise EngineError(f"the engine failed on a batch of {len(batch)}") from error
        return logits

    def close(self) -> None:
        self._net = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
