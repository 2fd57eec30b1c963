"""Log lines: one JSON object each for machines, or plain text for a terminal. Set up by the command line, never on import."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """One object a line: time (RFC 3339), level, logger, message, and whatever the caller added."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD and v is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class ConsoleFormatter(logging.Formatter):
    """Time, level, message, then what the caller added as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD and v is not None}
        shown = " ".join(f"{k}={v}" for k, v in extra.items() if k not in {"method", "path", "status"})
        text = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {record.getMessage()} {shown}".rstrip()
        text = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)  # a path with a newline must not look like a second line
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure(kind: Literal["auto", "json", "console"], level: str) -> None:
    """Send every logger's lines to standard error in one format."""
    if kind == "auto":
        kind = "console" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries have their say when something is wrong
    for ours in ("sknet", "uvicorn"):
        logging.getLogger(ours).setLevel(level.upper())
