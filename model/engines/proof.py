"""Is this engine the network it says it is? A few images, the reference's answers, and how far an engine's are from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model.engines.base import Outputs
from model.errors import CheckpointCorrupt

if TYPE_CHECKING:
    from model.observed import Observed
    from model.types import PreprocessSpec

COUNT = 4
NOT_FINITE = "the network's first output is not finite: the weights hold NaN or infinity"
ALL_THE_SAME = "the network answers the same to every image: the weights hold no trained network"
SPEED_S = 0.15
# Relative deviation of the logits that is still the same network. Measured on these images with the bundled checkpoint and
# with seeded skresnet18, 50 and skresnext50 of randomised statistics: float32 up to 2e-6, bfloat16 up to 0.025 (skresnet50; the
# others 0.006), int8 up to 0.051 (the others 0.02). Too far are another network or seed (1.0 and more), classes in another order
# (1.5), branches exchanged (1.1), another normalisation (0.5), and int8 ranges measured on pictures too dark or flat to be true
# of others (0.4 and more).
BOUNDS = {"float32": 1e-3, "bfloat16": 0.03, "int8": 0.1}
# Largest difference of a unit's mean share of attention that is still the same network's. Measured with the same networks:
# float32 up to 2e-7, bfloat16 up to 0.0023, int8 up to 0.0052. With the last weights of each unit's attention enlarged 8 and 32
# times, so that it decides more sharply, engines whose logits are within their bound were up to 2.3e-4 off in float32 and 0.0029
# in bfloat16. Too far are units in another order (bundled 0.12, seeded 0.01 to 0.13) and kernels exchanged (bundled 0.23, seeded
# 0.02 to 0.21).
ATTENTION_BOUNDS = {"float32": 1e-3, "bfloat16": 0.02, "int8": 0.03}


def images(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The images of the proof, the same for ever: (COUNT, H, W, 3), smooth fields of colour with detail at several scales."""
    height, width = size
    rng = np.random.Generator(np.random.PCG64(20190319))  # the stream of a named generator is part of numpy's promise
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    out = np.full((COUNT, height, width, 3), 127.5)
    for frequency in (1, 2, 5, 11, 23):
        for i in range(COUNT):
            u, v, phase = rng.uniform(-1, 1, (3, 3))
            out[i] += 60 / frequency**0.5 * np.sin(2 * np.pi * (frequency * (u * x + v * y) + phase))
    return out.clip(0, 255).astype(np.uint8)


def reference(network: Observed, spec: PreprocessSpec) -> Outputs:
    """The answers of the reference, float32 on the CPU, one image at a time; without features.

    Raises:
        CheckpointCorrupt: an answer that is not finite.
    """
    import torch

    from model.engines.inputs import normalise

    with torch.inference_mode():
        answers = [network(normalise(torch.from_numpy(image[None]), spec)) for image in images(spec.size)]
    logits, attention = (np.concatenate([answer[i].numpy() for answer in answers]).astype(np.float32) for i in (0, 1))
    if not np.isfinite(logits).all():
        raise CheckpointCorrupt(NOT_FINITE)
    return Outputs(logits, attention, None)


def finite(values: npt.NDArray[np.float32]) -> bool:
    """Whether every one is a finite number."""
    return bool(np.isfinite(values).all())


def deviation(logits: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> float:
    """Root mean square of the differences over that of the reference; infinite where an answer is not finite."""
    if not np.isfinite(logits).all():
        return float("inf")
    return float(np.linalg.norm(logits - reference) / max(float(np.linalg.norm(reference)), 1e-12))


def attention_deviation(attention: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> float:
    """The largest difference of a unit's mean share, 0..1; infinite where there are other units, or a share is not finite."""
    if attention.shape != reference.shape or not np.isfinite(attention).all():
        return float("inf")
    return float(np.abs(attention - reference).max(initial=0.0))


def differs(logits: npt.NDArray[np.float32]) -> bool:
    """Whether the answers (COUNT, num_classes) depend on the image at all."""
    return bool((logits != logits[0]).any())


def speed(run: Callable[[npt.NDArray[np.uint8]], object], size: tuple[int, int], streams: int, batch_size: int) -> float:
    """Images a second of the engine alone, as many calls side by side as it likes; a measurement of `SPEED_S` seconds."""
    batch = np.resize(images(size), (batch_size, *size, 3))
    end = time.perf_counter() + SPEED_S

    def stream(_: int) -> float:
        count, started = 0, time.perf_counter()
        while count == 0 or time.perf_counter() < end:
            run(batch)
            count += batch_size
        return count / (time.perf_counter() - started)

    with ThreadPoolExecutor(streams) as pool:
        return sum(pool.map(stream, range(streams)))
