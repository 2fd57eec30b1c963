"""The entrance to tracing: off costs no import, a missing extra or a wrong variable is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from app import tracing
from app.cli import main
from app.main import create_app
from app.settings import Settings, SettingsError
from tests.app.asgi import serving
from tests.fakes import FakeModel

MISSING = "SKNET_TRACING needs the extra that sends spans: pip install 'sknet-serve[tracing]'"
# Read by every interpreter at its start: as if the extra were not installed.
HIDING = """
import sys
class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hiding())
"""


def test_off_it_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_NEEDED", ("no.such.thing",))
    tracing.check_tracing(Settings())
    with pytest.raises(SettingsError) as found:
        tracing.check_tracing(Settings(tracing=True))
    assert str(found.value) == MISSING


def test_without_the_extra_the_start_fails_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    root = str(Path(__file__).parents[2])
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}:{root}", "SKNET_TRACING": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "serve", "--port", "0"],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"Error: {MISSING} (see python -m app.cli serve --help)"]


def test_what_is_found_missing_only_late_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "app.collector", None)
    with pytest.raises(SettingsError) as found:
        create_app(Settings(tracing=True), load=lambda _: FakeModel())
    assert str(found.value) == MISSING


def test_a_wrong_variable_ends_the_start_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(SettingsError, match=r"^tracing cannot be set up: OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"):
        create_app(Settings(tracing=True), load=lambda _: FakeModel())


def test_a_wrong_variable_is_a_wrong_setting_before_anything_starts() -> None:
    environment = {"SKNET_TRACING": "true", "SKNET_WORKERS": "2", "OTEL_EXPORTER_OTLP_COMPRESSION": "zip"}
    done = CliRunner().invoke(main, ["serve", "--port", "0"], env=environment)
    said = "tracing cannot be set up: OTEL_EXPORTER_OTLP_COMPRESSION is 'zip': here it may be none or gzip or deflate"
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"Error: {said}")


def test_no_variable_is_looked_at_where_tracing_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "zip")
    tracing.check_tracing(Settings())
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_COMPRESSION"):
        tracing.check_tracing(Settings(tracing=True))
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracing.check_tracing(Settings(tracing=True))


async def test_disabled_by_the_librarys_variable_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with serving(tracing=True) as service:
        response = await service.client.post("/classify", files={"file": b"x"})
    assert response.status_code == 200
    assert "traceresponse" not in response.headers


def test_the_document_is_printed_without_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert CliRunner().invoke(main, ["openapi"], env={"SKNET_TRACING": "true"}).exit_code == 0


def test_off_nothing_of_it_is_imported_and_nothing_is_sent() -> None:
    # The library's empty interface is: the web framework imports it where it is installed.
    code = """
import asyncio, sys
called = []
sys.addaudithook(lambda event, arguments: called.append(arguments) if event in ("socket.connect", "socket.getaddrinfo") else None)
from tests.app.asgi import serving
async def main():
    async with serving() as service:
        headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        assert (await service.client.post("/classify", files={"file": b"x"}, headers=headers)).status_code == 200
asyncio.run(main())
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))], called)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[] []", done.stderr
