"""An exported float32 graph and prepared photographs -> the same graph in int8, by NNCF. Knows nothing of files of images.

NNCF measures the range of every activation over the photographs and puts the roundings to eight bits into the graph; no
training, no labels. It is the extra `int8`, for calibrating alone: who serves an int8 graph needs OpenVINO only.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model import graphs
from model.engines import trace
from model.engines.runtime import core, silence
from model.errors import EngineError
from model.graphs import Graph
from model.preprocess import normalise
from model.types import PreprocessSpec

Pixels = npt.NDArray[np.uint8]
Progress = Callable[[Sequence[Pixels], str], Iterable[Pixels]]

PRESET = "mixed"


def nncf() -> Any:
    """The module, which keeps to itself: no reports sent, nothing printed, other libraries' loggers as they were.

    Raises:
        EngineError: it is not installed, or cannot be imported.
    """
    silence()
    kind = logging.getLoggerClass()
    try:
        module = import_module("nncf")
    except ImportError as error:
        raise EngineError("calibrating needs NNCF, which is not installed here: pip install 'sknet-serve[int8]'") from error
    finally:
        logging.setLoggerClass(kind)  # it makes its own the class of every logger to come
    logger = logging.getLogger("nncf")
    logger.handlers.clear()  # it writes to standard output, past whoever set logging up
    logger.propagate = True
    logger.setLevel(logging.WARNING)
    # With a CUDA compiler but no GPU, torch's builder of extensions, which NNCF imports, says so at every start.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    return module


def quantise(graph: Graph, spec: PreprocessSpec, images: Sequence[Pixels], folder: Path, progress: Progress) -> Graph:
    """Write the int8 graph of a float32 one into `folder`.

    Args:
        images: what `model.preprocess.pixels` makes of photographs, each (H, W, 3).
        progress: called once with the images and a word, and gives them back one by one.

    Raises:
        EngineError: NNCF is not installed, or fails on this network.
        OSError: the folder cannot be written.
    """
    made = _quantised(core().read_model(graph.xml), spec, images, progress)
    note = f"int8 by NNCF {nncf().__version__} ({PRESET}) over {len(images)} images; {graph.note}"
    key = replace(graph.key, precision="int8")
    return graphs.write(
        folder, key, graph.known, graph.parameters, graph.gmacs, lambda xml: trace.save(made, xml), note
    )  # fmt: skip


def _quantised(model: Any, spec: PreprocessSpec, images: Sequence[Pixels], progress: Progress) -> Any:
    library = nncf()
    try:
        with redirect_stdout(io.StringIO()):  # its progress bars, which are drawn on files as well
            return library.quantize(
                model,
                library.Dataset(_Watched(images, progress), lambda image: normalise(image, spec)[None]),
                preset=library.QuantizationPreset(PRESET),
                target_device=library.TargetDevice.CPU,
                subset_size=len(images),
                ignored_scope=library.IgnoredScope(names=in_float(model)),
                advanced_parameters=_advanced(),
            )
    except Exception as error:  # NNCF raises errors of its own, OpenVINO's RuntimeError and everything between
        raise EngineError(f"NNCF cannot quantise this network ({type(error).__name__})") from error


def _advanced() -> Any:
    """Two of NNCF's defaults turned: of 5,000 images the bundled checkpoint gave 98.3 % the same class with its own, 99.5 % so.

    Ranges are the least and the largest value over all images: the mean of each image's, NNCF's own, cuts off what is rare.
    Biases are left alone: correcting them made the answers worse.
    """
    library, ranges = nncf(), import_module("nncf.quantization.range_estimator")
    return library.AdvancedQuantizationParameters(
        disable_bias_correction=True, activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX
    )


def in_float(model: Any) -> list[str]:
    """The operations that keep their precision: those of the attention, on maps of 1x1, whose time cannot be measured.

    So the weights of the branches move by up to 0.03; in int8, on the same images, by up to 0.07.
    """
    return [op.get_friendly_name() for op in model.get_ordered_ops() if _of_attention(op)]


def _of_attention(op: Any) -> bool:
    if op.get_type_name() == "Convolution":
        return [int(n) for n in op.get_output_shape(0)][2:] == [1, 1]
    return bool(op.get_type_name() == "ReduceMean")


class _Watched:
    """The images with a progress; NNCF asks for their number."""

    def __init__(self, images: Sequence[Pixels], progress: Progress) -> None:
        self._images, self._progress = images, progress

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Pixels]:
        return iter(self._progress(self._images, "calibrating"))
