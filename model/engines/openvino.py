"""The engine of processors: an exported graph in OpenVINO's CPU plugin, without torch in the process.

Images run one by one, in as many parallel streams as there are threads; an image that is alone in the service gets every
thread at once, through a second compilation of the same graph.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model.engines.base import Head, Outputs, joined
from model.engines.runtime import core, openvino, openvino_version
from model.errors import EngineError, GraphError
from model.types import Choice

if TYPE_CHECKING:
    from model.engines.base import Batch, Plan
    from model.graphs import Graph
    from model.types import PreprocessSpec

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def computes_bfloat16() -> bool:
    """Whether this processor does, in hardware (AVX512-BF16, AMX or Arm's BF16).

    Raises:
        EngineError: OpenVINO is not installed.
    """
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoEngine:
    """A graph compiled for this processor."""

    batch_size = 1  # batches were 8 % faster than single images at best, and slower than parallel streams

    def __init__(self, plan: Plan) -> None:
        placement = plan.placement
        if placement.device.value != "cpu":
            raise EngineError(f"engine 'openvino' runs on the cpu, not on {placement.device.value}")
        self.choice = Choice("openvino", f"OpenVINO {openvino_version()}: the fastest on a processor")
        self.placement = placement
        threads = int(placement.threads.value)
        streams = min(plan.streams or threads, threads)
        self.streams = Choice(str(streams), _why(plan.streams, threads))
        graph = plan.graph()
        known = graph.known
        self.parameters, self.gmacs = graph.parameters, graph.gmacs
        self.reference = Outputs(known.logits, known.attention, None)
        self.head = Head(known.weight, known.bias)
        self._spec = plan.spec
        try:
            read = cache(partial(_read, graph, plan.spec))  # once for both: each reading maps the weights anew
            self._parallel: _Compiled | None = _Compiled(read, plan.spec.size, placement.dtype.value, streams, threads)
            self._alone = self._parallel
            if streams > 1:
                self._alone = _Compiled(read, plan.spec.size, placement.dtype.value, 1, threads)
        except RuntimeError as error:  # OpenVINO's own: a graph that it cannot read or compile
            raise GraphError("OpenVINO cannot compile the graph") from error

    def run(self, batch: Batch, *, alone: bool = False, features: bool = False) -> Outputs:
        compiled = self._alone if alone else self._parallel
        if compiled is None:
            raise EngineError("the engine is closed")
        try:
            return joined([compiled(batch[i : i + 1], features) for i in range(len(batch))])
        except RuntimeError as error:
            raise EngineError(f"the engine failed on a batch of {len(batch)}") from error

    def close(self) -> None:
        self._parallel = self._alone = None  # type: ignore[assignment]


def _why(asked: int, threads: int) -> str:
    """The reason for the number of streams."""
    if not asked:
        return "one a thread: images side by side beat shared work"
    if asked <= threads:
        return "asked for"
    return f"asked for {asked}, but there {'is only 1 thread' if threads == 1 else f'are only {threads} threads'}"


class _Compiled:
    """One compilation, with a request for each call that runs at once; called from several threads."""

    def __init__(self, read: Callable[[str], Any], size: tuple[int, int], dtype: str, streams: int, threads: int) -> None:
        self._read = read
        self._config = {
            "INFERENCE_PRECISION_HINT": _HINTS.get(dtype) or ("bf16" if computes_bfloat16() else "f32"),
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # no gain was seen, and pinned threads of two processes share a core
        }
        self._lock = threading.Lock()
        self._free: dict[str, deque[Any]] = {}
        self._models: dict[str, Any] = {}
        # The first inferences of a process must not come together in several threads: the binding can then deadlock
        # against the interpreter's lock. Here is one thread, and every process that serves passes here first.
        self(np.zeros((1, *size, 3), np.uint8))

    def __call__(self, image: npt.NDArray[Any], features: bool = False) -> Outputs:
        kind = image.dtype.name
        with self._lock:
            free = self._free.get(kind) or self._compile(kind)
            request = free.pop() if free else self._models[kind].create_infer_request()
        try:
            # Outputs stay where they are until they are copied: the features are large, and hardly ever wanted.
            found = request.infer({0: image}, share_inputs=True, share_outputs=True)
            return Outputs(found[0].copy(), found[1].copy(), found[2].copy() if features else None)
        finally:
            free.append(request)

    def _compile(self, kind: str) -> deque[Any]:
        """Compile for pixels (uint8) or for normalised input (float32), which is asked for by tensor protocols only."""
        if kind not in self._models:
            self._models[kind] = core().compile_model(self._read(kind), "CPU", self._config)
            self._free[kind] = deque()
        return self._free[kind]


def _read(graph: Graph, spec: PreprocessSpec, kind: str) -> Any:
    model = core().read_model(graph.xml)
    return _takes_pixels(model, spec) if kind == "uint8" else model


def _takes_pixels(model: Any, spec: PreprocessSpec) -> Any:
    """Put the normalisation into the graph: its input becomes uint8 (1, H, W, 3), as decoders give it."""
    ov = openvino()
    steps = ov.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    scaled = steps.input().preprocess().convert_element_type(ov.Type.f32)
    scaled.mean([255 * v for v in spec.mean]).scale([255 * v for v in spec.std])
    return steps.build()
