"""The command line: tables, JSON, exit codes, and errors of one line."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest
from click.testing import CliRunner, Result

from app import cli
from app.cli import main
from app.settings import Settings, flag, load_settings
from model.registry import VARIANTS, WEIGHTS


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), env=env, prog_name="sknet")


def test_without_a_command_it_helps() -> None:
    result = run()
    assert result.exit_code == 0
    assert all(name in result.stdout for name in main.commands)
    assert result.stdout == run("--help").stdout
    assert run("keys").exit_code == 0


def test_serve_has_a_flag_for_every_setting_but_secrets() -> None:
    words = set(run("serve", "--help").output.split())
    assert {flag(name) for name in Settings.model_fields} - words == {"--api-keys"}
    assert run("serve", "--api-keys", "a-key-of-16-chars").exit_code == 2


def test_keys_of_the_environment_are_not_shown() -> None:
    env = {"SKNET_API_KEYS": "a-key-of-16-chars"}
    for arguments in (["serve", "--help"], ["openapi"], ["classify", "x.jpg", "--threads", "-1"], ["serve", "--port", "x"]):
        assert "a-key-of-16-chars" not in run(*arguments, env=env).output


@pytest.mark.parametrize("keys", ["short", ",", "a:b:c", "a:predict:sha256:12", "0123456789abcdef,0123456789abcdef"])
def test_keys_that_cannot_be_used_are_one_line_that_does_not_show_them(keys: str) -> None:
    result = run("serve", env={"SKNET_API_KEYS": keys})
    assert result.exit_code == 2
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: SKNET_API_KEYS")
    assert not any(part in line for part in keys.split(",") if len(part) > 3)


@pytest.mark.parametrize(
    ("arguments", "env", "status", "says"),
    [
        (["classify", __file__, "--checkpoint", "bundled:nope"], {}, 1, "nope"),
        (["classify", "x.jpg"], {}, 2, "there is no x.jpg"),
        (["classify", "x.jpg", "--threads", "-1"], {}, 2, "--threads is '-1': it may be a whole number from 0 to 1024"),
        (["classify", "x.jpg"], {"SKNET_DEVICE": "tpu"}, 2, "SKNET_DEVICE is 'tpu': it may be auto, cpu, cuda, cuda:N"),
        (["classify"], {}, 2, "Missing argument"),
        (["health", "--url", "http://127.0.0.1:9"], {}, 1, "no SKNet service answers at http://127.0.0.1:9"),
        (["health", "--url", "not an address"], {}, 1, "no SKNet service answers"),
        (["clasify"], {}, 2, "No such command 'clasify'"),
        (["--bogus"], {}, 2, "No such option '--bogus'. (see sknet --help)"),
        (["keys", "new", "--scope", "all"], {}, 2, "(see sknet keys new --help)"),
    ],
)
def test_errors_are_one_line(arguments: list[str], env: dict[str, str], status: int, says: str) -> None:
    result = run(*arguments, env=env)
    assert result.exit_code == status
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert says in line


def test_bench_reads_no_file_without_end() -> None:
    result = run("bench", "/dev/zero")
    assert (result.exit_code, result.stderr) == (1, "Error: /dev/zero: larger than 100 MB\n")


@contextmanager
def answering(*pieces: bytes, pause_s: float = 0.0) -> Iterator[str]:
    """The address of what answers the first who asks, piece by piece for as long as it is listened to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError), listening.accept()[0] as talk:
                talk.recv(65536)
                for piece in pieces:
                    talk.sendall(piece)
                    time.sleep(pause_s)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            thread.join(60)


def told(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        (told("200 OK", b'{"ready": true, "state": "ready", "reasons": []}'), 0, "ready"),
        (told("503 No", b'{"ready": false, "state": "loading", "reasons": ["it loads"]}'), 1, "Error: not ready: it loads"),
        (told("503 No", b'{"ready": false, "reasons": [1]}'), 1, "Error: not ready: 503 Service Unavailable"),
        (told("503 No", b'{"reasons": 1}'), 1, "Error: not ready: 503 Service Unavailable"),
        (told("200 OK", b"<html>"), 1, "Error: no SKNet service answers at http://127.0.0.1:"),
        (told("404 No", b'{"reasons": []}'), 1, "Error: no SKNet service answers at http://127.0.0.1:"),
    ],
)
def test_health(answer: bytes, status: int, says: str) -> None:
    with answering(answer) as url:
        result = run("health", "--url", url)
    assert (result.exit_code, result.exception is None or isinstance(result.exception, SystemExit)) == (status, True)
    (line,) = result.output.splitlines()
    assert line.startswith(says)


def test_health_does_not_wait_for_the_last_drop() -> None:
    """It goes when its time is up, and whoever drips hears of it: of 30 s of drops only a few are sent."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n"
    began = time.monotonic()
    with answering(head, *[b" "] * 600, pause_s=0.05) as url:
        result = run("health", "--url", url, "--timeout-s", "0.3")
    assert (result.exit_code, "no SKNet service answers" in result.stderr) == (1, True)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("arguments", "env", "port"),
    [
        (["serve"], {}, 8000), (["--in-image"], {}, 8000), (["--in-image", "serve"], {}, 8080),
        (["--in-image", "serve", "--top-k", "3"], {}, 8080), (["--in-image", "serve", "--port", "9000"], {}, 9000),
        (["--in-image"], {"SKNET_PORT": "9000"}, 9000), (["--in-image", "serve"], {"SKNET_PORT": "9000"}, 9000),
        (["--in-image"], {"AIP_HTTP_PORT": "9001"}, 9001), (["--in-image", "serve"], {"AIP_HTTP_PORT": "9001"}, 9001),
        (["--in-image", "serve"], {"AIP_HTTP_PORT": "9001", "SKNET_PORT": "9000"}, 9000),
        (["serve"], {"AIP_HTTP_PORT": "9001"}, 9001),
        (["--in-image", "serve"], {"SKNET_PORT": "8000"}, 8000), (["--in-image", "serve"], {"SKNET_PORT": ""}, 8080),
    ],
)  # fmt: skip
def test_where_it_serves(monkeypatch: pytest.MonkeyPatch, arguments: list[str], env: dict[str, str], port: int) -> None:
    seen = []

    def settings_from(flags: dict[str, object]) -> Settings:
        seen.append(load_settings(flags))
        raise click.UsageError("far enough")

    monkeypatch.setattr(cli, "settings_from", settings_from)
    assert "far enough" in run(*arguments, env=env).stderr
    assert [settings.port for settings in seen] == [port]


def test_the_image_runs_other_commands_too() -> None:
    assert run("--in-image", "models").stdout == run("models").stdout
    assert run("--in-image", "--help").stdout == run("--help").stdout
    assert "in-image" not in run("--help").stdout
    missing = run("--")
    assert (missing.exit_code, missing.stderr.strip()) == (2, "Error: Missing command. (see sknet --help)")


def test_health_in_the_image_looks_where_it_may_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(told("200 OK", b'{"ready": true, "state": "ready", "reasons": []}')) as url:
        nobody = Settings(port=1)  # nothing listens there
        monkeypatch.setattr(cli, "settings_from", lambda _: nobody)
        monkeypatch.setattr(cli, "AS_SERVE_PORT", int(url.rpartition(":")[2]))
        assert run("health").exit_code == 1
        said = run("--in-image", "health", env={"SKNET_PORT": "1"})
        assert (said.exit_code, said.stderr.strip()) == (1, "Error: no SKNet service answers at http://127.0.0.1:1")
        assert run("--in-image", "health").stdout == "ready\n"


def test_models_lists_what_there_is() -> None:
    text = run("models").output
    assert "cifar10" in text
    assert all(name in text for name in (*VARIANTS, *WEIGHTS))
    listed = json.loads(run("models", "--json").output)
    assert [v["name"] for v in listed["variants"]] == list(VARIANTS)
    assert listed["bundled"] == ["cifar10"]
    assert listed["weights"][0]["sha256"] is None


def test_openapi_prints_the_document() -> None:
    document = json.loads(run("openapi").output)
    assert "/classify" in document["paths"]


HEAVY = ("torch", "openvino", "numpy", "fastapi", "uvicorn", "httpx", "PIL", "matplotlib")


@pytest.mark.parametrize("arguments", [["--help"], ["classify", "--help"], [], ["bogus"], ["keys", "new"]])
def test_help_and_mistakes_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom app.cli import main\n"
        "try:\n    main(prog_name='sknet')\n"
        f"finally:\n    print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
