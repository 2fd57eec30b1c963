"""The compiled engine: where there is a compiler it proves itself, elsewhere it says what is missing."""

from __future__ import annotations

import gc
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch

from model import engines
from model.complexity import count_parameters
from model.device import place
from model.engines import inductor, proof
from model.engines.base import Engine, Plan
from model.engines.cuda_graphs import Entrance
from model.engines.inputs import normalise
from model.errors import EngineError
from model.graphs import Graph
from model.sknet import SKNet
from model.types import Choice, PreprocessSpec
from tests.model.small import observed, tiny

pytestmark = pytest.mark.timeout(900)  # a C++ compiler works for half a minute here, and longer beside other work

SPEC = PreprocessSpec(size=(32, 40))
PIXELS = proof.images(SPEC.size)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Engines set torch's threads for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def no_graph() -> Graph:
    raise AssertionError("this engine is made from the network")


def plan(network: Callable[[], SKNet] = tiny, precision: str = "float32", batch_size: int = 0) -> Plan:
    return Plan(network, no_graph, SPEC, place("cpu", precision, 2), batch_size=batch_size)


def make(plan: Plan) -> Engine | None:
    """The engine; None on a machine without a compiler, where it was refused as it should be."""
    if shutil.which("g++"):
        return engines.make("compile", plan)
    with pytest.raises(EngineError, match=r"needs a C\+\+ compiler, and 'g\+\+' was not found: install g\+\+"):
        engines.make("compile", plan)
    return None


def other() -> SKNet:
    """The same architecture with other numbers: what is cached for one must not answer for the other."""
    net = tiny()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def children() -> set[str]:
    """Processes that this one started and that are alive; none where there is no /proc."""
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


def answers(engine: Engine, count: int) -> float:
    """Deviation of `count` images at once from the reference, by single images where they are more than the proof has."""
    assert engine.reference is not None
    index = np.arange(count) % proof.COUNT
    found = engine.run(PIXELS[index])
    assert (found.logits.shape, found.attention.shape, found.features) == ((count, 3), (count, 2, 2), None)
    assert found.logits.dtype == found.attention.dtype == np.float32
    apart = proof.attention_deviation(found.attention, engine.reference.attention[index])
    assert apart <= proof.ATTENTION_BOUNDS[engine.placement.dtype.value]
    return proof.deviation(found.logits, engine.reference.logits[index])


def test_here_it_proves_itself_or_says_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    before = children()
    caplog.set_level("INFO", "sknet.engine")
    engine = make(plan(batch_size=3))
    if engine is None:
        return
    assert (engine.choice.value, engine.streams.value, engine.batch_size) == ("compile", "1", 3)
    assert engine.parameters == count_parameters(tiny())
    assert engine.gmacs > 0
    said = [record.getMessage() for record in caplog.records if record.name == "sknet.engine"]
    assert [line.split(" in ")[0] for line in said if line.startswith("compiled")] == [
        "compiled the network for 1x3x32x40",
        "compiled the network for 3x3x32x40",
    ]
    for count in (1, 3, 8):
        assert answers(engine, count) <= proof.BOUNDS["float32"]
    prepared = normalise(torch.from_numpy(PIXELS), SPEC).numpy()
    full = engine.run(PIXELS, features=True)
    for found, wanted in zip(engine.run(prepared, features=True), full, strict=True):
        assert found is not None
        np.testing.assert_array_equal(found, wanted)
    assert full.features is not None
    with torch.inference_mode():
        _, attention, features = observed()(torch.from_numpy(prepared))
    np.testing.assert_allclose(full.attention, attention.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(full.features, features.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(engine.head.weight, tiny().fc.weight.detach().numpy())
    for wrong in (np.zeros((1, 40, 32, 3), np.uint8), np.zeros((1, 1, 1, 3), np.uint8), np.zeros((2, 5, 32, 40), np.float32)):
        with pytest.raises(EngineError, match="this engine was compiled for"):
            engine.run(wrong)
    assert children() == before, "no compiling process outlives the compilation"
    engine.close()
    engine.close()  # twice is once
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.run(PIXELS)


def tensors() -> list[tuple[int, ...]]:
    """Shapes of every tensor that is alive and holds anything."""
    gc.collect()
    return sorted(tuple(t.shape) for t in gc.get_objects() if type(t) in (torch.Tensor, torch.nn.Parameter) and t.numel())


def test_two_models_of_one_architecture_keep_their_own_numbers_and_leave_no_weights() -> None:
    before = tensors()
    first, second = make(plan()), make(plan(other))
    if first is None or second is None:
        return
    assert first.reference is not None
    assert second.reference is not None
    assert proof.deviation(first.reference.logits, second.reference.logits) > 10 * proof.BOUNDS["float32"]
    for engine in (first, second):
        assert answers(engine, 2) <= proof.BOUNDS["float32"]
    assert len(tensors()) > len(before)
    first.close()
    assert answers(second, 2) <= proof.BOUNDS["float32"]
    second.close()
    assert tensors() == before


def test_bfloat16_stays_within_its_bound() -> None:
    engine = make(plan(precision="bfloat16"))
    if engine is None:
        return
    deviation = answers(engine, 2)
    assert 1e-5 < deviation <= proof.BOUNDS["bfloat16"]
    engine.close()


def test_a_precision_that_it_has_not() -> None:
    wanted = replace(plan(), placement=replace(place("cpu"), dtype=Choice("int8", "asked for")))
    with pytest.raises(EngineError, match="computes in float32 or bfloat16, not in int8"):
        engines.make("compile", wanted)


def test_what_cannot_be_compiled_is_an_error_of_ours() -> None:
    class Unstable(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(EngineError, match=r"cannot be compiled for 1x3 on cpu") as caught:
        inductor.compiled(Unstable(), torch.ones(1, 3))
    assert caught.value.__cause__ is not None


def refusal(device: str) -> str:
    with pytest.raises(EngineError) as caught:
        inductor.check(device)
    text = str(caught.value)
    assert text.endswith("or choose another engine: openvino on a processor, eager anywhere")
    return text


def test_a_missing_compiler_is_named_before_the_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> SKNet:
        raise AssertionError("without a compiler no network is needed")

    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(EngineError, match="needs a C\\+\\+ compiler"):
        engines.make("compile", plan(never))
    assert "neither gcc nor clang was found" in refusal("cuda")


def test_the_compiler_is_the_one_that_inductor_would_call(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": (None, "no-such-compiler -x")}):
        assert "'no-such-compiler -x' was not found" in refusal("cpu")


def test_other_things_that_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    find = util.find_spec
    with monkeypatch.context() as without:
        without.setattr(util, "find_spec", lambda name: None if name == "triton" else find(name))
        assert "needs the package triton" in refusal("cuda")
    with monkeypatch.context() as without:
        without.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
        assert f"{tmp_path}/Python.h is missing: install python3-dev" in refusal("cpu")


def test_a_cache_that_others_can_write_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inductor, "_check_headers", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    cache = tmp_path / "cache"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    inductor.check("cpu")
    cache.chmod(0o777)
    assert f"will not run code from {cache}, which another user can write" in refusal("cpu")
    cache.rmdir()
    cache.write_text("a file in its place")
    assert "has no place for what it compiles" in refusal("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_entrance_of_cuda_graphs_normalises_as_the_other_engines_do(dtype: torch.dtype) -> None:
    net = observed().to(dtype).to(memory_format=torch.channels_last)
    entrance = Entrance(net, SPEC, dtype).eval()
    pixels = torch.from_numpy(PIXELS)
    with torch.no_grad():
        expected = net(normalise(pixels, SPEC).to(dtype, memory_format=torch.channels_last))
        given = entrance(pixels)
        program = torch.export.export(entrance, (pixels,), strict=False)
    assert len(given) == len(expected) == 3
    for found, wanted in zip(given, expected, strict=True):
        assert found.dtype == torch.float32
        assert found.is_contiguous()  # rows are copied from here to the host, in this order
        assert torch.equal(found, wanted.float())
    # A constant made inside the pass would be copied from unpinned memory, which no CUDA graph can hold.
    assert not program.constants
