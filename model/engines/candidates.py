"""Which engines come into question for a request, best first. Knows what they need, not whether they prove themselves."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from model.device import Placement, choose_device, place
from model.engines import ENGINES
from model.engines.runtime import openvino, openvino_version
from model.errors import DeviceError, EngineError
from model.types import Choice

logger = logging.getLogger("sknet.model")


@dataclass(frozen=True)
class Candidate:
    """An engine with where and how it would run."""

    engine: str
    placement: Placement
    reason: str

    def __str__(self) -> str:
        return f"{self.engine} ({self.placement.dtype.value})"


def candidates(engine: str, device: str, precision: str, threads: int) -> list[Candidate]:
    """The engines to try, in order. More than one only where "auto" leaves the choice; then the reference is the last.

    Raises:
        EngineError: no such engine.
        DeviceError: a device, precision or number of threads that does not exist here, or that no engine goes with.
    """
    if engine != "auto" and engine not in ENGINES:
        raise EngineError(f"engine {engine!r}: it may be auto, {', '.join(ENGINES)}")
    chosen = choose_device(device)
    base = place(chosen.value, precision, threads)
    base = replace(base, device=chosen)
    found = _of_processor(engine, precision, base) if chosen.value == "cpu" else _of_gpu(engine, base)
    if not found:
        raise DeviceError(f"engine {engine!r} does not go with device {chosen.value} and precision {precision!r}")
    return found


def _of_processor(engine: str, precision: str, base: Placement) -> list[Candidate]:
    out = []
    if engine == "openvino" or (engine == "auto" and (precision == "int8" or _openvino_works())):
        why = _why(engine, "the fastest on a processor")
        out += [Candidate("openvino", replace(base, dtype=dtype), why) for dtype in _roundings(precision, base)]
    if engine == "compile" and precision != "int8":
        out.append(Candidate("compile", base, "asked for"))
    if engine in ("auto", "eager") and precision != "int8":
        out.append(Candidate("eager", base, _why(engine, "the reference implementation, PyTorch operator by operator")))
    return out


def _openvino_works() -> bool:
    """Whether it is installed and can be imported: a wheel may be there that this system cannot load."""
    if openvino_version() is None:
        return False
    try:
        openvino()
    except EngineError as error:
        logger.warning("OpenVINO is not used: %s", error)
        return False
    return True


def _of_gpu(engine: str, base: Placement) -> list[Candidate]:
    if base.dtype.value == "int8":
        return []
    out = []
    if engine in ("auto", "compile"):
        out.append(Candidate("compile", base, _why(engine, "compiled for this GPU")))
    if engine in ("auto", "eager"):
        out.append(Candidate("eager", base, _why(engine, "the reference implementation, PyTorch operator by operator")))
    return out


def _roundings(precision: str, base: Placement) -> list[Choice]:
    """What OpenVINO may compute in: bfloat16 first where the processor has it."""
    from model.engines.openvino import computes_bfloat16

    if precision != "auto":
        return [base.dtype]
    exact = Choice("float32", "auto: this processor has no bfloat16 arithmetic")
    if not computes_bfloat16():
        return [exact]
    return [
        Choice("bfloat16", "auto: this processor computes it in hardware, twice as fast as float32 or more"),
        Choice("float32", "auto: bfloat16 was refused"),
    ]


def _why(engine: str, reason: str) -> str:
    return f"auto: {reason}" if engine == "auto" else f"asked for: {reason}"
