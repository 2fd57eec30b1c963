"""Log lines: what a machine parses, and what a person reads."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TextIO

import pytest

from app import logs
from app.logs import ConsoleFormatter, JsonFormatter, Writer, configure, last_word


def record(message: str = "GET %s", *args: object, error: BaseException | None = None, **extra: object) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("sknet.access", logging.INFO, __file__, 1, message, args or None, exc_info)
    vars(made).update(extra)
    return made


def test_json_is_one_object_a_line() -> None:
    text = JsonFormatter().format(record("GET %s", "/a\nb", request_id="abc", status=200, problem=None, path="/a\nb"))
    assert "\n" not in text
    line = json.loads(text)
    time = datetime.fromisoformat(line.pop("time"))
    assert time.utcoffset() == timedelta(0)
    assert line == {
        "level": "info",
        "logger": "sknet.access",
        "message": "GET /a\nb",
        "request_id": "abc",
        "status": 200,
        "path": "/a\nb",
    }


def test_json_carries_the_traceback_and_whatever_was_added() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        text = JsonFormatter().format(record("failed", error=error, thing={1, 2}))
    line = json.loads(text)
    assert "ValueError: why" in line["exception"]
    assert "test_logs.py" in line["exception"]
    assert line["thing"] == "{1, 2}"


def test_console_is_one_readable_line() -> None:
    text = ConsoleFormatter().format(
        record("GET %s 200", "/a", method="GET", path="/a", status=200, request_id="abc", problem=None)
    )
    time, rest = text.split(" ", 1)
    assert len(time) == 8
    assert rest == "info    GET /a 200 request_id=abc"


@pytest.mark.parametrize("control", ["\n", "\r", "\x1b[31m", "\x00", "\x85"])
def test_what_strangers_send_makes_no_second_line_and_no_colour(control: str) -> None:
    text = ConsoleFormatter().format(record("GET %s", f"/a{control}12:00:00 info    fine", client=f"x{control}y"))
    assert len(text.splitlines()) == 1
    assert control not in text
    assert repr(control[0])[1:-1] in text


def test_console_shows_the_traceback_in_lines() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        lines = ConsoleFormatter().format(record("failed", error=error)).splitlines()
    assert lines[0].endswith("failed")
    assert lines[-1] == "ValueError: why"


@pytest.fixture
def _root_is_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("httpx", "httpcore", "PIL")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for ours in ("sknet", "uvicorn"):
        logging.getLogger(ours).setLevel(logging.NOTSET)
    for name, each in levels.items():
        logging.getLogger(name).setLevel(each)


@pytest.mark.usefixtures("_root_is_put_back")
@pytest.mark.parametrize(
    ("kind", "terminal", "formatter"),
    [
        ("json", True, JsonFormatter),
        ("console", False, ConsoleFormatter),
        ("auto", True, ConsoleFormatter),
        ("auto", False, JsonFormatter),
    ],
)
def test_every_logger_writes_to_standard_error(
    kind: str, terminal: bool, formatter: type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    configure(kind, "info")  # type: ignore[arg-type]
    (handler,) = logging.getLogger().handlers
    assert type(handler.formatter) is formatter
    logging.getLogger("sknet.anything").info("heard")
    logging.getLogger("sknet.anything").debug("not heard")
    logging.getLogger("httpx").info("noise")
    handler.flush()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "heard" in err


@pytest.mark.usefixtures("_root_is_put_back")
def test_lines_of_a_worker_say_which_one_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info", worker=1)
    logging.getLogger("sknet.anything").info("heard")
    logging.getLogger("a.library").warning("heard as well")
    logging.getLogger().handlers[0].flush()
    assert [json.loads(line)["worker"] for line in capsys.readouterr().err.splitlines()] == [1, 1]


# nobody reads


@contextmanager
def writing(stream: TextIO) -> Iterator[tuple[Writer, logging.Logger]]:
    """A writer to a stream, and a logger of its own that has no other."""
    writer, logger = Writer(stream), logging.Logger("sknet.anything")
    logger.addHandler(writer)
    try:
        yield writer, logger
    finally:
        writer.close()


def read_lines(end: int, wanted: str) -> list[str]:
    """From a pipe until a line holds these words."""
    with os.fdopen(end, encoding="utf-8") as stream:
        lines = []
        for line in stream:
            lines.append(line.rstrip("\n"))
            if wanted in line:
                return lines
    raise AssertionError(f"no line holds {wanted}")


def test_a_pipe_that_nobody_empties_stops_nobody_and_costs_the_lines_that_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_LINES", 100)
    monkeypatch.setattr(logs, "FLUSH_S", 0.05)
    end, start = os.pipe()
    with os.fdopen(start, "w") as stream, writing(stream) as (writer, logger):
        sent = 0
        while not writer.dropped:  # as many as the pipe, the thread and the line take
            logger.info("%05d %s", sent, "x" * 1000)
            sent += 1
            assert sent < 100_000
        logger.info("%05d", sent)
        sent += 1
        writer.flush()  # nor does the end wait for ever
        lines = read_lines(end, "were dropped")
    dropped = int(re.search(r"(\d+) log lines were dropped", lines[-1])[1])  # type: ignore[index]
    numbers = [int(line[:5]) for line in lines[:-1]]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + dropped == sent


def test_a_reader_that_left_and_a_full_disk_cost_lines_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end, start = os.pipe()
    os.close(end)
    with os.fdopen(start, "w") as stream, writing(stream) as (writer, logger):
        logger.info("to nobody")
        writer.flush()
        assert writer.dropped == 1
    failing = [True]
    write = os.write

    def full(file: int, data: bytes) -> int:
        if failing[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    with (tmp_path / "log").open("w") as stream, writing(stream) as (writer, logger):
        logger.info("lost")
        writer.flush()
        failing[0] = False
        logger.info("kept")
        writer.flush()
        writer.flush()  # what the thread itself had to say
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first == "kept"
    assert second.startswith("1 log lines were dropped")


@pytest.mark.usefixtures("_root_is_put_back")
def test_the_last_word_comes_behind_the_log_and_waits_for_no_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FLUSH_S", 0.05)
    with (tmp_path / "log").open("w") as stream, writing(stream) as (writer, logger):
        logging.getLogger().handlers[:] = [writer]
        logger.info("before")
        last_word("Error: why")
        writer.close()
    assert (tmp_path / "log").read_text() == "before\nError: why\n"
    end, start = os.pipe()
    os.set_blocking(start, False)
    with suppress(BlockingIOError):
        while True:
            os.write(start, b"x" * 1000)
    os.set_blocking(start, True)
    with os.fdopen(start, "w") as stream, writing(stream) as (writer, _):
        logging.getLogger().handlers[:] = [writer]
        last_word("Error: why")
        os.close(end)  # and its thread is let go


def test_without_a_standard_error_lines_are_written_to_nothing() -> None:
    code = "import logging; from app.logs import configure; configure('auto', 'info'); logging.getLogger('sknet.x').info('x')"
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, code], check=False, timeout=60)
    assert done.returncode == 0


def test_what_cannot_be_encoded_is_written_as_it_can(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream, writing(stream) as (writer, logger):
        logger.info("/a\udcff")
        writer.flush()
    assert (tmp_path / "log").read_text() == "/a\\udcff\n"
