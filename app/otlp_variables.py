"""What the variables `OTEL_*` may hold, where the library takes its default for a wrong value with a line in the log, or without.

Knows no library: whoever sets it up asks first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.settings import of_opentelemetry

PROTOCOL = "http/protobuf"
_SAMPLERS = (
    "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
)  # fmt: skip
_QUEUE, _BATCH = "BSP_MAX_QUEUE_SIZE", "BSP_MAX_EXPORT_BATCH_SIZE"
_MOST = 999_999_999  # more is a mistake
_DEFAULTS = {_QUEUE: 2048, _BATCH: 512}  # of the specification


@dataclass(frozen=True, slots=True)
class _Check:
    """One value: the names that may hold it, of which the first that does counts; whether it may be used, and what may."""

    names: tuple[str, ...]
    usable: Callable[[str], bool]
    allowed: str


def _sending(name: str) -> tuple[str, str]:
    return f"EXPORTER_OTLP_TRACES_{name}", f"EXPORTER_OTLP_{name}"


def _choice(names: tuple[str, ...], *allowed: str) -> _Check:
    return _Check(names, lambda given: given.strip().lower() in allowed, " or ".join(allowed))


def _number(given: str) -> float:
    try:
        return float(given)
    except ValueError:
        return math.nan


def _whole(given: str) -> bool:
    digits = given.strip()
    return digits.isascii() and digits.isdigit() and len(digits) <= len(str(_MOST)) and int(digits) > 0


def _file(names: tuple[str, ...]) -> _Check:
    return _Check(names, lambda given: Path(given).exists(), "a file that is there")


_ALWAYS = (
    _choice(("TRACES_EXPORTER",), "otlp", "none"),
    _Check(("TRACES_SAMPLER",), lambda given: given.lower() in _SAMPLERS, " or ".join(_SAMPLERS)),  # blanks around it matter
    _Check(("TRACES_SAMPLER_ARG",), lambda given: 0 <= _number(given) <= 1, "a number from 0 to 1"),
)
_SENDING = (
    _choice(_sending("PROTOCOL"), PROTOCOL),
    _choice(_sending("COMPRESSION"), "none", "gzip", "deflate"),
    _Check(_sending("TIMEOUT"), lambda given: 0 < _number(given) < math.inf, "a number of seconds, more than 0"),
    *map(_file, map(_sending, ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"))),
    *(
        _Check((name,), _whole, f"a whole number from 1 to {_MOST}")
        for name in (_QUEUE, _BATCH, "BSP_SCHEDULE_DELAY", "BSP_EXPORT_TIMEOUT")
    ),
)


def disabled() -> bool:
    """Whether the library is switched off; then none of the others is looked at."""
    return of_opentelemetry("SDK_DISABLED").strip().lower() == "true"


def sends() -> bool:
    """Whether spans are to go to a collector.

    Raises:
        ValueError: a variable cannot be used; names it, what it holds and what it may hold.
    """
    _hold(_ALWAYS)
    if of_opentelemetry("TRACES_EXPORTER").strip().lower() == "none":
        return False
    _hold(_SENDING)
    queue, batch = (int(of_opentelemetry(name) or default) for name, default in _DEFAULTS.items())
    if queue < batch:
        raise _unusable(_QUEUE, str(queue), f"{batch} or more, which is OTEL_{_BATCH}")
    return True


def _hold(checks: tuple[_Check, ...]) -> None:
    for check in checks:
        name, given = next(((name, text) for name in check.names if (text := of_opentelemetry(name))), ("", ""))
        if given and not check.usable(given):
            raise _unusable(name, given, check.allowed)


def _unusable(name: str, given: str, allowed: str) -> ValueError:
    return ValueError(f"OTEL_{name} is {given[:100]!r}: here it may be {allowed}")
