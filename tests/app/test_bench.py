"""Measuring: processes and their trees, the two load generators, what is recommended. Never how fast anything is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.bench import advice, measure, run
from app.bench.client import Connection, get, keep_busy, post
from app.bench.load import Load, LoadError, _by_client, form, put_load, wrk_path
from app.bench.process import Service, ServiceError, free_port, running
from app.bench.report import table
from app.settings import Settings, load_settings
from model.types import Choice

# Answers every POST with the length of its body; /bad with 503. A child of its own shows that trees are seen.
SERVER = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self): self.answer(200, str(child.pid).encode())
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(503 if self.path == "/bad" else 200, str(len(body)).encode())
    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    port = free_port()
    log = tmp_path_factory.mktemp("bench") / "log"
    with running([sys.executable, "-c", SERVER, str(port)], f"http://127.0.0.1:{port}", log) as started:
        started.wait_until_ready("/", 60)
        yield started


def where(service: Service) -> tuple[str, int]:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return host, int(port)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_whole_tree_is_counted_and_ended(tmp_path: Path) -> None:
    port = free_port()
    with running([sys.executable, "-c", SERVER, str(port)], f"http://127.0.0.1:{port}", tmp_path / "log") as started:
        started.wait_until_ready("/", 60)
        grandchild = int(httpx.get(started.url, trust_env=False).text)
        usage = started.usage()
        assert usage.cpu_s > 0
        assert usage.rss_bytes > 2 * 2**20  # two interpreters
        assert grandchild in started.known  # in a session of its own, and seen none the less
        assert alive(grandchild)
    end = time.monotonic() + 10
    while alive(grandchild) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(grandchild)
    assert started.process.poll() is not None


def test_a_service_that_ends_at_its_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no weights here'); raise SystemExit(3)"]
    with running(command, f"http://127.0.0.1:{free_port()}", tmp_path / "log") as started:
        with pytest.raises(ServiceError, match=r"(?s)exit status 3.*no weights here"):
            started.wait_until_ready("/", 60)


def test_a_service_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    with running(
        [sys.executable, "-c", "import time; time.sleep(600)"], f"http://127.0.0.1:{free_port()}", tmp_path / "log"
    ) as up:
        with pytest.raises(ServiceError, match=r"not ready within 0.3 s"):
            up.wait_until_ready("/", 0.3)


async def test_a_connection_serves_many_requests(service: Service) -> None:
    host, port = where(service)
    connection = Connection(host, port)
    for length in (0, 1, 100_000):
        answer = await connection.ask(post(host, "/", "image/jpeg", length), b"x" * length)
        assert (answer.code, answer.body, answer.ok) == ("200", str(length).encode(), True)
        assert answer.seconds > 0
    assert not (await connection.ask(post(host, "/bad", "image/jpeg", 1), b"x")).ok
    connection.close()


async def test_keeping_busy_counts_good_refused_and_broken(service: Service) -> None:
    host, port = where(service)
    good = await keep_busy(host, port, [(post(host, "/", "image/jpeg", 3), b"abc")], 2, 0.3)
    assert good.seconds
    assert (good.refused, good.broken) == (0, 0)
    refused = await keep_busy(host, port, [(post(host, "/bad", "image/jpeg", 3), b"abc")], 1, 0.2)
    assert refused.refused
    assert not refused.seconds
    broken = await keep_busy(host, free_port(), [(get(host, "/"), b"")], 1, 0.2)
    assert broken.broken


@pytest.mark.parametrize("wrk", [None, *([wrk_path()] if wrk_path() else [])])
def test_both_generators_post_the_bodies(service: Service, wrk: str | None) -> None:
    load = put_load(service, "/", "image/jpeg", [b"a" * 10, b"b" * 1000], connections=2, seconds=1, wrk=wrk)
    assert load.requests > 1
    assert load.bad == 0
    assert load.requests_s > 1
    assert 0 < load.p50_ms <= load.p90_ms <= load.p99_ms <= load.max_ms
    assert load.as_dict()["connections"] == 2
    with pytest.raises(LoadError, match="no good answer"):
        put_load(service, "/bad", "image/jpeg", [b"a"], connections=1, seconds=1, wrk=wrk)


def test_a_form_is_what_a_form_parser_reads() -> None:
    from email import message_from_bytes

    content_type, body = form(b"\xff\xd8 bytes", "file")
    parsed = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    whole, part = parsed.walk()
    assert whole.is_multipart()
    assert part.get_param("name", header="content-disposition") == "file"
    assert part.get_payload(decode=True) == b"\xff\xd8 bytes"


def model(calls: list[int], streams: int = 2, batch_size: int = 4) -> Any:
    """Whatever calls itself a model and tells what it was asked."""
    info = SimpleNamespace(streams=Choice(str(streams), ""), threads=Choice("2", ""), batch_size=batch_size)
    return SimpleNamespace(info=info, prepare=lambda data: data, run=lambda items: calls.append(len(items)))


def test_the_engine_is_called_as_it_likes() -> None:
    calls: list[int] = []
    found = measure.engine(model(calls), b"photo", 0.1)
    assert set(calls) == {1, 4}  # alone, and in batches of its size
    assert (found.streams, found.batch_size) == (2, 4)
    assert found.images_s > 0
    assert measure.engine(model([]), b"photo", 0.1, batch_size=8).batch_size == 8


def test_a_made_photograph_has_the_size_it_should() -> None:
    from io import BytesIO

    from PIL import Image

    image = Image.open(BytesIO(measure.photograph(64, 48)))
    assert (image.size, image.format) == ((64, 48), "JPEG")


def engine(images_s: float, streams: int = 2, batch_size: int = 1) -> measure.Engine:
    return measure.Engine(images_s, 5.0, streams, 2, batch_size, 6.0)


def load(connections: int, requests_s: float, p99_ms: float = 50, rss_mib: float = 200) -> Load:
    return Load(connections, 100, requests_s, 10, 20, p99_ms, 60, 0, 12.0, rss_mib, rss_mib)


def test_what_is_within_the_noise_is_left_alone() -> None:
    assert advice.streams([engine(100), engine(104, streams=1)]).startswith("leave SKNET_STREAMS")
    assert advice.batch_size([engine(100), engine(104, batch_size=8)]).startswith("leave SKNET_BATCH_SIZE")
    assert advice.workers({1: load(16, 100), 2: load(16, 104)}).startswith("SKNET_WORKERS=1: 2 workers give 1.04")


def test_what_is_faster_is_recommended_with_its_gain() -> None:
    assert advice.streams([engine(100), engine(150, streams=1)]) == "SKNET_STREAMS=1: 150 images/s, 50 % more than by default"
    assert advice.batch_size([engine(100), engine(120, batch_size=8)]).startswith("SKNET_BATCH_SIZE=8: 20 % more")
    text = advice.workers({1: load(16, 100), 2: load(16, 140, rss_mib=390)})
    assert text == "SKNET_WORKERS=2: 40 % more requests/s than one, for 190 MiB more"


def test_the_fewest_connections_that_are_enough() -> None:
    text = advice.connections([load(1, 40), load(4, 97, 45), load(16, 100, 160), load(64, 99, 640)])
    assert text == "4 connections reach 97 of 100 requests/s at p99 45 ms; 64 only wait longer, p99 640 ms"


def test_where_the_time_of_a_request_goes() -> None:
    small, large = measure.Decoding(200, 3.0, 100_000), measure.Decoding(8, 130.0, 2_000_000)
    text = advice.balance(engine(100), small, large, load(16, 80))
    assert "12.0 core-ms: engine 6.0, decoding 3.0, HTTP and the rest 3.0" in text
    assert "12-megapixel photograph costs 130" in text


def test_other_streams_are_those_worth_a_try() -> None:
    assert run._other_streams(2, 2) == [1]
    assert run._other_streams(16, 16) == [1, 8]


def test_no_batch_is_measured_that_the_engine_would_take_apart() -> None:
    assert [run._other_sizes(size) for size in (1, 4, 8, 32)] == [[], [1], [1], [1, 8]]


def test_a_table_keeps_its_columns() -> None:
    assert table([("name", "n"), ("a", "1.0"), ("long one", "10.0")]).splitlines() == [
        "name         n",
        "a          1.0",
        "long one  10.0",
    ]


def test_the_client_as_a_program_prints_json(service: Service, tmp_path: Path) -> None:
    import json
    import subprocess

    body = tmp_path / "body"
    body.write_bytes(b"x" * 50)
    host, port = where(service)
    command = [sys.executable, "-m", "app.bench.client", host, str(port), "/", "image/jpeg", "1", "0.2", str(body)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=dict(os.environ))
    figures = json.loads(done.stdout)
    assert figures["seconds"]
    assert figures["bad"] == 0


@pytest.mark.parametrize("text", ["", "x", "1,,2", "0", "1,-2"])
def test_connections_that_are_no_numbers_are_refused(text: str) -> None:
    from click.testing import CliRunner

    from app.cli import main

    result = CliRunner().invoke(main, ["bench", "--connections", text])
    assert result.exit_code == 2
    assert "whole numbers from 1 up" in result.output


def test_programs_are_not_looked_for_in_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("app.bench.measure.running", lambda command, *_, **__: seen.append(command))
    measure.service(Settings(), tmp_path)
    assert seen[0][1:5] == ["-P", "-m", "app.cli", "serve"]
    assert _by_client("http://127.0.0.1:1", "/", "", [], 1, 1.0, tmp_path, "")[1:4] == ["-P", "-m", "app.bench.client"]


def test_what_is_measured_needs_no_key_and_its_command_line_shows_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = "a-key-of-16-characters"
    monkeypatch.setenv("SKNET_API_KEYS", secret)
    monkeypatch.setenv("SKNET_RATE_LIMIT", "2")
    monkeypatch.setenv("SKNET_TOP_K", "3")
    seen: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("app.bench.measure.running", lambda command, *_, env: seen.append((command, env)))
    measure.service(load_settings(), tmp_path)
    ((command, env),) = seen
    assert "--top-k" in command
    assert not [word for word in command if "key" in word.replace("keep", "") or "rate" in word or secret in word]
    assert not {"SKNET_API_KEYS", "SKNET_RATE_LIMIT"} & set(env)
    assert secret not in str(env)
