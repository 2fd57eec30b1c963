"""What comes into an engine -> what goes into the network, for the engines that are made of PyTorch."""

from __future__ import annotations

import torch

from model.types import PreprocessSpec


def normalise(batch: torch.Tensor, spec: PreprocessSpec) -> torch.Tensor:
    """uint8 pixels (B, H, W, 3) -> float32 (B, 3, H, W) on the same device; float32 is taken for normalised already."""
    if batch.dtype != torch.uint8:
        return batch
    x = batch.permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(values, device=x.device)[:, None, None] for values in (spec.mean, spec.std))
    return (x / 255 - mean) / std  # in the order of `model.preprocess`: the numbers are equal to the bit


def exact_float32(device: torch.device) -> None:
    """Let a GPU compute float32 in full, in this whole process: by default its convolutions use TF32, which keeps 10 of 23 bits.

    Who asks for float32 asks for the reference's numbers; who wants speed takes bfloat16, which this does not touch.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # products of matrices are computed in full by default
