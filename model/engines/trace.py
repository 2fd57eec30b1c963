"""A network -> OpenVINO's intermediate representation. Imports torch: for a helper process, not for one that serves."""

from __future__ import annotations

import errno
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.engines.runtime import openvino
from model.errors import GraphError

if TYPE_CHECKING:
    from model.observed import Observed


def trace(network: Observed, size: tuple[int, int]) -> Any:
    """Trace a network in evaluation mode, float32 on the CPU, for one image of `size` (height, width).

    The result is an `openvino.Model`: input float32 (1, 3, H, W), normalised; outputs by name
    "logits" (1, num_classes), "attention" (1, U, M) and "features" (1, F, H', W'), as of `model.observed`.

    Raises:
        EngineError: OpenVINO is not installed.
        GraphError: it cannot express the network.
    """
    import torch

    ov = openvino()
    shape = [1, 3, *size]
    level = logging.getLogger().level
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # What OpenVINO's converter traces with announces its own retirement at every call.
            warnings.filterwarnings("ignore", message="`torch.jit.")
            model = ov.convert_model(network, example_input=torch.zeros(shape), input=shape)
    except Exception as error:
        raise GraphError(f"the network cannot be exported ({type(error).__name__})") from error
    finally:
        logging.getLogger().setLevel(level)  # the converter sets it for the whole process
    model.inputs[0].get_tensor().set_names({"input"})
    for output, name in zip(model.outputs, ("logits", "attention", "features"), strict=True):
        output.get_tensor().set_names({name})
    return model


def save(model: Any, xml: Path) -> None:
    """Write a graph as `xml` and the weights beside it, in the precision they have.

    Raises:
        OSError: there is no room, or the folder cannot be written.
    """
    try:
        openvino().save_model(model, xml, compress_to_fp16=False)
    except RuntimeError as error:  # of its output stream, which does not tell why
        raise OSError(errno.EIO, "the disk is full or the folder cannot be written") from error
