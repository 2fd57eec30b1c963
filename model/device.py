"""Device, precision, memory format and threads, each chosen with its reason in words.

torch is imported only where a CUDA device could matter, so that asking for the processor costs nothing.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from model.errors import DeviceError
from model.types import Choice

CGROUP = Path("/sys/fs/cgroup")
PRECISIONS = ("auto", "float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Placement:
    """Where and how a network runs."""

    device: Choice
    dtype: Choice
    memory_format: Choice
    threads: Choice


def place(device: str = "auto", precision: str = "auto", threads: int = 0) -> Placement:
    """Choose a placement.

    Args:
        device: auto, cpu, cuda or cuda:N. precision: one of `PRECISIONS`. threads: 0 for the container's CPU limit.

    Raises:
        DeviceError: a device that this machine does not have, or something that is none of these.
    """
    chosen = choose_device(device)
    return Placement(chosen, choose_precision(precision, chosen.value), _memory_format(), choose_threads(threads))


def choose_device(requested: str) -> Choice:
    """The device to run on, checked to exist.

    Raises:
        DeviceError: no such device here, or no device's name; the text says which there are.
    """
    if requested == "cpu":
        return Choice("cpu", "asked for")
    named = re.fullmatch(r"cuda(?::(\d+))?", requested, re.ASCII)
    if requested != "auto" and named is None:
        raise DeviceError(f"device {requested!r}: it may be auto, cpu, cuda or cuda:N")
    if requested == "auto" and not cuda_driver_devices():
        return Choice("cpu", "auto: no CUDA device was found")
    try:
        import torch
    except ImportError:
        if requested == "auto":
            return Choice("cpu", "auto: there is a CUDA device, but PyTorch, which would use it, is not installed")
        raise DeviceError(f"device {requested!r} needs PyTorch, which is not installed here") from None

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if named is None:
        if count:
            return Choice("cuda:0", f"auto: found {torch.cuda.get_device_name(0)}")
        return Choice("cpu", "auto: no CUDA device was found")
    index = int(named[1] or 0)
    if index >= count:
        found = f"cuda:0 to cuda:{count - 1}" if count else "none"
        raise DeviceError(f"device {requested!r} does not exist: CUDA devices found: {found}")
    return Choice(f"cuda:{index}", "asked for")


def cuda_driver_devices() -> int:
    """How many CUDA devices the driver knows, asked without torch, whose import takes seconds; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:  # 0 is CUDA_SUCCESS
        return 0
    return count.value


def choose_precision(requested: str, device: str) -> Choice:
    """The arithmetic of PyTorch on a device of `choose_device`; int8 only where it is asked for.

    Raises:
        DeviceError: another precision.
    """
    if requested not in PRECISIONS:
        raise DeviceError(f"precision {requested!r}: it may be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
    if requested != "auto":
        return Choice(requested, "asked for")
    if not device.startswith("cuda"):
        return Choice("float32", "auto: the reference arithmetic, on a processor")
    import torch

    with torch.cuda.device(device):  # the question is answered for the current device
        in_hardware = torch.cuda.is_bf16_supported(including_emulation=False)
    if in_hardware:
        return Choice("bfloat16", "auto: this GPU computes it in hardware, and it needs half the memory of float32")
    return Choice("float32", "auto: this GPU would only emulate bfloat16")


def choose_threads(requested: int) -> Choice:
    """Threads of the engine: as asked, or for 0 as many as the processors that this process may really use.

    Raises:
        DeviceError: a negative number.
    """
    if requested < 0:
        raise DeviceError(f"threads {requested}: give 1 or more, or 0 for as many as there are processors")
    if requested:
        return Choice(str(requested), "asked for")
    limit, reason = cpu_limit()
    return Choice(str(limit), f"auto: {reason}")


def cpu_limit(cgroup: Path = CGROUP) -> tuple[int, str]:
    """Processors this process may use, and which limit says so: affinity, or the container's quota if that is less."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(cgroup)
    if quota is not None and quota < available:
        return max(1, math.floor(quota)), f"the container's quota of {quota:g} processors"
    return available, f"{available} processors available"


def _cgroup_quota(cgroup: Path) -> float | None:
    """Processors that the control group allows: `cpu.max` of version 2, `cpu.cfs_*` of version 1; None for no limit."""
    for quota_file, period_file in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = (cgroup / quota_file).read_text().split()
            if period_file is not None:
                words += (cgroup / period_file).read_text().split()
            quota, period = words[0], words[1]
            return None if quota in ("max", "-1") else int(quota) / int(period)
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue  # no such version of control groups here, or nothing readable in it: no limit known
    return None


def _memory_format() -> Choice:
    return Choice("channels_last", "the layout in which processors and tensor cores compute convolutions")
