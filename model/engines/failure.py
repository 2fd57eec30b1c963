"""What torch raises while it computes -> the package's own errors. Knows nothing of what was computed."""

from __future__ import annotations

import traceback

import torch

from model.errors import EngineError, OutOfMemory

# Beside the allocator of CUDA, which has a type of its own: the driver's, and the processor's allocator, which have none.
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: Exception) -> bool:
    """Whether there was no memory, on the device or on the processor."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def failure(error: RuntimeError, count: int) -> EngineError:
    """The error to raise for a batch of `count` images: `OutOfMemory` where a smaller one may run."""
    if not is_out_of_memory(error):  # a lost device, a shape that does not fit
        return EngineError(f"the engine failed on a batch of {count}")
    # The frames of the failed pass hold its feature maps, and whoever holds the error holds the frames: the smaller batch
    # that is tried next, with this error at hand, would find the memory still taken.
    traceback.clear_frames(error.__traceback__)
    return OutOfMemory(f"the device has no memory for a batch of {count}")
