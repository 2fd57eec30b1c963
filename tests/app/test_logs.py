"""Log lines: what a machine parses, and what a person reads."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from app.logs import ConsoleFormatter, JsonFormatter, configure


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
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "heard" in err


@pytest.mark.usefixtures("_root_is_put_back")
def test_lines_of_a_worker_say_which_one_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info", worker=1)
    logging.getLogger("sknet.anything").info("heard")
    logging.getLogger("a.library").warning("heard as well")
    assert [json.loads(line)["worker"] for line in capsys.readouterr().err.splitlines()] == [1, 1]
