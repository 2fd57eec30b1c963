"""A module -> the same module compiled by TorchInductor for one shape. Knows nothing of batches, of CUDA graphs or of pixels.

torch.export and Inductor without Dynamo, on purpose: `torch.compile` keeps what it compiled by code object, in a table of
eight entries that all models of the process share, checks guards at each call, and compiles again, seconds inside
somebody's request, when a guard fails, of which the number of threads that the calling thread once saw is one. What is made
here has no guards and no table: it is freed with the last reference to it.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shlex
import shutil
import stat
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from model.engines.failure import is_out_of_memory
from model.errors import EngineError, OutOfMemory

logger = logging.getLogger("sknet.engine")

_OPTIONS: dict[str, str | int | bool | Callable[..., object]] = {
    "freezing": True,  # weights are constants: normalisation is folded into them, and they are laid out for the kernels
    "compile_threads": 1,  # in this process: a pool of compiling processes would outlive the compilation
    "triton.cudagraphs": False,  # CUDA graphs are captured by hand, see `model.engines.cuda_graphs`
}
_ELSE = "or choose another engine: openvino on a processor, eager anywhere"
# Options are set for the whole process while it compiles, and torch.export is not made for several threads.
_one_at_a_time = threading.Lock()


def check(device_type: str) -> None:
    """Say now what would be missing after minutes.

    Raises:
        EngineError: no compiler, no headers of Python, or no place for what is compiled; says what to do.
    """
    if device_type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise EngineError(f"the compile engine needs the package triton for a GPU: install it, {_ELSE}")
        if not (shutil.which("gcc") or shutil.which("clang")):  # Triton's launchers are C
            raise EngineError(f"the compile engine needs a C compiler, and neither gcc nor clang was found: install gcc, {_ELSE}")
    else:
        from torch._inductor import config

        command = str(config.cpp.cxx[-1])  # $CXX, else g++
        if not shutil.which((shlex.split(command) or [""])[0]):
            raise EngineError(f"the compile engine needs a C++ compiler, and {command!r} was not found: install g++, {_ELSE}")
    _check_headers()
    _check_cache()


def _check_headers() -> None:
    scheme = sysconfig.get_default_scheme()
    # Debian's own scheme names a folder of local additions, in which the interpreter's headers are not.
    headers = Path(sysconfig.get_path("include", "posix_prefix" if scheme == "posix_local" else scheme))
    if not (headers / "Python.h").is_file():
        raise EngineError(
            f"the compile engine needs Python's headers, and {headers}/Python.h is missing: install python3-dev, {_ELSE}"
        )


def _check_cache() -> None:
    """Inductor's cache, `$TORCHINDUCTOR_CACHE_DIR`, else a folder of a known name under the temporary one; never the home."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    try:
        folder = Path(cache_dir())
        about = folder.stat()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise EngineError(
            f"the compile engine has no place for what it compiles: {error.filename}: {reason}: "
            f"name another folder in TORCHINDUCTOR_CACHE_DIR, {_ELSE}"
        ) from error
    foreign = hasattr(os, "geteuid") and about.st_uid != os.geteuid()
    if foreign or about.st_mode & stat.S_IWOTH:  # what lies there is loaded as code
        raise EngineError(
            f"the compile engine will not run code from {folder}, which another user can write: "
            f"name a folder of your own in TORCHINDUCTOR_CACHE_DIR, {_ELSE}"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise EngineError(f"the compile engine cannot write to {folder}: name another folder in TORCHINDUCTOR_CACHE_DIR, {_ELSE}")


@contextmanager
def _no_module_kept() -> Iterator[None]:
    """Take what is compiled in here out of Inductor's table of modules: it holds their weights until the process ends."""
    from torch._inductor.codecache import PyCodeCache

    before = len(PyCodeCache.modules)
    try:
        yield
    finally:
        shared = set(map(id, PyCodeCache.modules_no_attr.values()))  # kernels: no weights, and found there by the next model
        for module in PyCodeCache.modules[before:]:
            if id(module) not in shared:
                PyCodeCache.modules.remove(module)
                if sys.modules.get(module.__name__) is module:
                    del sys.modules[module.__name__]  # its functions live on, and with them its weights, as long as the caller's


def compiled(net: nn.Module, example: Tensor) -> Callable[[Tensor], Sequence[Tensor]]:
    """`net`, which gives several tensors, compiled for inputs of exactly the shape, strides, type and device of `example`.

    Any thread may call it, without gradients. Other inputs are refused by it with an AssertionError.

    Raises:
        OutOfMemory: no memory on the device.
        EngineError: it cannot be compiled.
    """
    from torch import _inductor

    started = time.monotonic()
    shape = "x".join(map(str, example.shape))
    logger.info("compiling the network for %s on %s", shape, example.device)
    try:
        with _one_at_a_time, _no_module_kept(), torch.no_grad():
            program = torch.export.export(net, (example,), strict=False)
            module = program.module(check_guards=False)
            run: Callable[[Tensor], Sequence[Tensor]] = _inductor.compile(module, [example], options=_OPTIONS)
    except Exception as error:  # the compilers behind Inductor raise what they like: there is no common base
        if is_out_of_memory(error):
            raise OutOfMemory(f"the device has no memory to compile the network for {shape}") from error
        raise EngineError(f"the network cannot be compiled for {shape} on {example.device} ({type(error).__name__})") from error
    logger.info("compiled the network for %s in %.1f s", shape, time.monotonic() - started)
    return run
