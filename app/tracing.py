"""Whether spans are made, and by what: the only entrance to OpenTelemetry, which is an extra and is imported only here and late.

Knows no span: `app.spans` makes them, `app.collector` sends them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from app.otlp_variables import disabled, sends
from app.settings import PREFIX, Settings, SettingsError

if TYPE_CHECKING:
    from app.spans import Tracing

_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


def check_tracing(settings: Settings) -> None:
    """Raises:
    SettingsError: tracing is wanted, and what it needs is not installed, or a variable cannot be used. Nothing of it is
        imported but empty packages.
    """
    if not settings.tracing:
        return
    if not all(map(_is_there, _NEEDED)):
        raise SettingsError(_missing())
    try:
        _ = disabled() or sends()
    except ValueError as error:
        raise SettingsError(_unusable(error)) from error


def new_tracing(quiet: frozenset[str]) -> Tracing | None:
    """Begin to trace as the variables `OTEL_*` say; None where `OTEL_SDK_DISABLED` forbids it. `quiet` as in `Tracing`.

    Raises:
        SettingsError: what it needs is not installed, or a variable cannot be used.
    """
    try:
        from app.collector import connect
        from app.spans import Tracing

        collector = connect()
    except ImportError as error:
        raise SettingsError(_missing()) from error
    except ValueError as error:  # some are read when a module is imported
        raise SettingsError(_unusable(error)) from error
    return None if collector is None else Tracing(collector, quiet)


def _unusable(error: ValueError) -> str:
    return f"tracing cannot be set up: {error}"


def _missing() -> str:
    return f"{PREFIX}TRACING needs the extra that sends spans: pip install 'sknet-serve[tracing]'"


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package around it
        return False
