"""Log lines: one JSON object each for machines, or plain text for a terminal. Set up by the command line, never on import.

Whoever logs never waits for whoever reads: a pipe that nobody empties, or a disk that is full, costs lines and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TextIO

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
MOST_LINES = 10_000  # that wait to be written, some 3 MB; what comes then is dropped, and counted
GATHER_S = 0.01  # lines that come together are written together: waking a thread for each would cost more than the line
AT_ONCE = 1000  # lines in one write
FLUSH_S = 1.0  # waited for at the end, if nobody reads
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


class Writer(logging.Handler):
    """Writes lines to a stream in a thread of its own, past the stream's buffer, which a stuck thread would keep locked."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        try:
            self._file: int | None = stream.fileno()
        except (OSError, ValueError):  # no file behind it, as under a test
            self._file = None
        self._closed = False
        self._waiting: queue.SimpleQueue[str | threading.Event] = queue.SimpleQueue()
        self._counting = threading.Lock()
        self.dropped = 0  # lines, since it was last told
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line, or drop it where too many wait."""
        if self._waiting.qsize() >= MOST_LINES:
            with self._counting:
                self.dropped += 1
            return
        try:
            self._waiting.put(self.format(record))
        except Exception:  # noqa: BLE001 - as every handler of the library: a line that cannot be made is no reason to fail
            self.handleError(record)

    def say(self, line: str) -> None:
        """Take a line that is made already."""
        self._waiting.put(line)

    def flush(self) -> None:
        """Wait until what was logged so far is written, but not for ever."""
        written = threading.Event()
        self._waiting.put(written)
        written.wait(FLUSH_S)

    def close(self) -> None:
        """Write what there is, then end the thread."""
        self.flush()
        self._closed = True
        self._waiting.put(threading.Event())
        super().close()

    def _write_all(self) -> None:
        while not self._closed:
            taken = [self._waiting.get()]
            if isinstance(taken[0], str):
                time.sleep(GATHER_S)
            with suppress(queue.Empty):
                while len(taken) < AT_ONCE:
                    taken.append(self._waiting.get_nowait())
            lines = [line for line in taken if isinstance(line, str)]
            if lines:
                self._write("\n".join((*lines, "")), len(lines))
            for marker in taken:
                if isinstance(marker, threading.Event):
                    marker.set()

    def _write(self, text: str, lines: int) -> None:
        try:
            if self._file is None:
                self._stream.write(text)
                self._stream.flush()
            else:
                left = memoryview(text.encode(errors="backslashreplace"))
                while left:
                    left = left[os.write(self._file, left) :]
        except (OSError, ValueError):  # the disk is full, or whoever read is gone
            with self._counting:
                self.dropped += lines
            return
        with self._counting:
            dropped, self.dropped = self.dropped, 0
        if dropped:
            text = "%d log lines were dropped: they could not be written, or not fast enough"
            self.handle(logging.LogRecord("sknet.log", logging.WARNING, __file__, 0, text, (dropped,), None))


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
    if sys.stderr is None:  # it was closed by whoever started this
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    if kind == "auto":
        kind = "console" if sys.stderr.isatty() else "json"
    handler = Writer(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else ConsoleFormatter())
    if worker is not None:
        handler.addFilter(_Mark(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries have their say when something is wrong
    for ours in ("sknet", "uvicorn"):
        logging.getLogger(ours).setLevel(level.upper())


def last_word(line: str) -> None:
    """Write a line as it is, behind what was logged, and wait for it as `flush` does."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Writer):
            handler.say(line)
    flush()


def flush() -> None:
    """Wait until what was logged so far is written, so that what comes past the log comes behind it."""
    for handler in logging.getLogger().handlers:
        handler.flush()
