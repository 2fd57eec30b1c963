"""OpenVINO, imported with its telemetry switched off. The only place that imports it; knows nothing of networks."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from model.errors import EngineError


def silence() -> None:
    """Keep OpenVINO's and NNCF's reports at home: both do without the package that sends them, once it cannot be imported.

    It sends on import, unasked, and its own switch is a file in the user's home; this leaves nothing behind.
    """
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # what the import system reads as "not there"


def openvino() -> Any:
    """The module.

    Raises:
        EngineError: it is not installed, or its libraries cannot be loaded.
    """
    silence()
    try:
        return import_module("openvino")
    except ImportError as error:
        missing = openvino_version() is None
        raise EngineError(f"OpenVINO {'is not installed' if missing else 'cannot be loaded'} here") from error


@cache
def core() -> Any:
    """The one `openvino.Core` of this process, kept to its end.

    On processors with AVX-512 each one gives the calling thread a signal stack of its own and takes it away when it goes, which
    is right for one at a time only: after the second the thread is left with memory that is no longer there, and the next
    signal ends the process.

    Raises:
        EngineError: as `openvino`.
    """
    return openvino().Core()


def openvino_version() -> str | None:
    """The version installed, found without importing it; None where there is none."""
    try:
        return version("openvino")
    except PackageNotFoundError:
        return None
