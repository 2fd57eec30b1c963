"""`model.device`: what is chosen, why, and what is refused. A CUDA device is a pretended one here."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from model import device as device_module
from model.device import choose_device, choose_precision, choose_threads, cpu_limit, place
from model.errors import DeviceError


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine of eight processors, of which six may be used."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(6)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    return 6


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device_module, "cuda_driver_devices", lambda: 0)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs: the first computes bfloat16, the second only emulates it."""
    current = [0]

    @contextmanager
    def device(name: str) -> Iterator[None]:
        before, current[0] = current[0], int(name.partition(":")[2])
        yield
        current[0] = before

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device_module, "cuda_driver_devices", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Pretended GPU {index}")
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or current[0] == 0)


@pytest.mark.parametrize(
    ("quota", "limit", "reason"),
    [
        ("max 100000", 6, "6 processors available"),
        ("150000 100000", 1, "the container's quota of 1.5 processors"),
        ("250000 100000", 2, "the container's quota of 2.5 processors"),
        ("50000 100000", 1, "the container's quota of 0.5 processors"),
        ("600000 100000", 6, "6 processors available"),
        ("900000 100000", 6, "6 processors available"),  # a quota above what the affinity leaves
        ("garbage", 6, "6 processors available"),
        ("", 6, "6 processors available"),
        ("many 100000", 6, "6 processors available"),
        ("100000 0", 6, "6 processors available"),
    ],
)
@pytest.mark.usefixtures("processors")
def test_the_quota_of_control_groups_2(tmp_path: Path, quota: str, limit: int, reason: str) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cpu_limit(tmp_path) == (limit, reason)


@pytest.mark.parametrize(("quota", "limit"), [("-1", 6), ("200000", 2), ("20000", 1), ("garbage", 6)])
@pytest.mark.usefixtures("processors")
def test_the_quota_of_control_groups_1(tmp_path: Path, quota: str, limit: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_limit(tmp_path)[0] == limit
    (tmp_path / "cpu" / "cpu.cfs_period_us").unlink()
    assert cpu_limit(tmp_path)[0] == 6  # half of a quota is none


def test_without_control_groups_the_affinity_counts(tmp_path: Path, processors: int) -> None:
    assert cpu_limit(tmp_path) == (processors, "6 processors available")
    (tmp_path / "cpu.max").write_bytes(b"\xff\xfe")
    assert cpu_limit(tmp_path)[0] == processors


@pytest.mark.usefixtures("processors")
def test_without_affinity_every_processor_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpu_limit(tmp_path)[0] == 8


def test_threads_as_asked_or_as_the_machine_allows() -> None:
    assert (choose_threads(3).value, choose_threads(3).reason) == ("3", "asked for")
    chosen = choose_threads(0)
    assert int(chosen.value) == cpu_limit()[0] >= 1
    assert chosen.reason == f"auto: {cpu_limit()[1]}"
    with pytest.raises(DeviceError, match="threads -1: give 1 or more, or 0"):
        choose_threads(-1)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu() -> None:
    assert (choose_device("auto").value, choose_device("auto").reason) == ("cpu", "auto: no CUDA device was found")
    assert (choose_device("cpu").value, choose_device("cpu").reason) == ("cpu", "asked for")
    for asked in ("cuda", "cuda:0", "cuda:7"):
        with pytest.raises(DeviceError, match=f"device '{asked}' does not exist: CUDA devices found: none"):
            choose_device(asked)


@pytest.mark.usefixtures("gpus")
def test_with_gpus() -> None:
    assert (choose_device("auto").value, choose_device("auto").reason) == ("cuda:0", "auto: found Pretended GPU 0")
    assert choose_device("cuda").value == "cuda:0"
    assert (choose_device("cuda:1").value, choose_device("cuda:1").reason) == ("cuda:1", "asked for")
    with pytest.raises(DeviceError, match="device 'cuda:2' does not exist: CUDA devices found: cuda:0 to cuda:1"):
        choose_device("cuda:2")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    "asked", ["", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:0:0", "cuda0", "mps", "cuda:\u0661", "auto "]
)
def test_what_is_no_device(asked: str) -> None:
    with pytest.raises(DeviceError) as caught:
        choose_device(asked)
    assert str(caught.value) == f"device {asked!r}: it may be auto, cpu, cuda or cuda:N"


@pytest.mark.usefixtures("gpus")
def test_the_precision_that_a_device_computes() -> None:
    first, second = choose_precision("auto", "cuda:0"), choose_precision("auto", "cuda:1")
    assert (first.value, second.value) == ("bfloat16", "float32")
    assert "in hardware" in first.reason
    assert second.reason == "auto: this GPU would only emulate bfloat16"
    assert choose_precision("auto", "cpu").value == "float32"


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_the_precision_asked_for(device: str) -> None:
    for asked in ("float32", "bfloat16"):
        chosen = choose_precision(asked, device)
        assert (chosen.value, chosen.reason) == (asked, "asked for")
    for nonsense in ("", "float16", "Float32", "int4"):
        with pytest.raises(DeviceError, match=f"precision '{nonsense}': it may be auto, float32, bfloat16 or int8"):
            choose_precision(nonsense, device)


@pytest.mark.usefixtures("no_gpu")
def test_every_choice_of_a_placement_has_its_reason() -> None:
    placement = place()
    choices = (placement.device, placement.dtype, placement.memory_format, placement.threads)
    assert [choice.value for choice in choices[:3]] == ["cpu", "float32", "channels_last"]
    assert all(len(choice.reason.split()) >= 3 for choice in choices)
    asked = place("cpu", "bfloat16", 2)
    assert (asked.device.value, asked.dtype.value, asked.threads.value) == ("cpu", "bfloat16", "2")
    assert {asked.device.reason, asked.dtype.reason, asked.threads.reason} == {"asked for"}


def test_without_a_driver_torch_is_not_asked() -> None:
    program = """
import sys
import model.device
model.device.cuda_driver_devices = lambda: 0
assert model.device.choose_device("auto").value == "cpu"
assert "torch" not in sys.modules
sys.modules["torch"] = None
model.device.cuda_driver_devices = lambda: 1
print(model.device.choose_device("auto").reason)
try:
    model.device.choose_device("cuda")
except model.device.DeviceError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [
        "auto: there is a CUDA device, but PyTorch, which would use it, is not installed",
        "device 'cuda' needs PyTorch, which is not installed here",
    ]


@pytest.mark.parametrize(("init", "count", "found"), [(0, 0, 3), (100, 0, 0), (0, 100, 0)])
def test_what_the_driver_says(monkeypatch: pytest.MonkeyPatch, init: int, count: int, found: int) -> None:
    class Driver:
        def cuInit(self, _flags: int) -> int:  # noqa: N802 - the driver's own name
            return init

        def cuDeviceGetCount(self, where: Any) -> int:  # noqa: N802
            where._obj.value = 3
            return count

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Driver())
    assert device_module.cuda_driver_devices() == found


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert device_module.cuda_driver_devices() == 0
