"""Log lines: one JSON object each for machines, or plain text for a terminal. Set up by the command line, never on import."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_encode = json.JSONEncoder(default=str).encode  # `json.dumps` would make an encoder for each line


@lru_cache(2)  # lines come many in a second
def _date_and_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")


class JsonFormatter(logging.Formatter):
    """One object a line: time (RFC 3339), level, logger, message, and whatever the caller added."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = int(record.created)
        line: dict[str, Any] = {
            "time": f"{_date_and_time(seconds)}.{int((record.created - seconds) * 1000):03d}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD and v is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


class ConsoleFormatter(logging.Formatter):
    """Time, level, message, then what the caller added as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD and v is not None}
        shown = " ".join(f"{k}={v}" for k, v in extra.items() if k not in {"method", "path", "status"})
        text = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {record.getMessage()} {shown}".rstrip()
        text = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)  # a path with a newline must not look like a second line
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _Mark(logging.Filter):
    """Adds the worker's number to every line."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.worker = self._worker
        return True


def configure(kind: Literal["auto", "json", "console"], level: str, *, worker: int | None = None) -> None:
    """Send every logger's lines to standard error in one format; those of a worker process say which one it is."""
    if kind == "auto":
        kind = "console" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else ConsoleFormatter())
    if worker is not None:
        handler.addFilter(_Mark(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries have their say when something is wrong
    for ours in ("sknet", "uvicorn"):
        logging.getLogger(ours).setLevel(level.upper())
