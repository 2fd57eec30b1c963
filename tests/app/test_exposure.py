"""What is warned of at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.exposure import is_loopback, warnings_of
from app.keys import Keys
from app.settings import Settings

KEY = "a-key-of-16-characters"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST."])
def test_a_service_of_this_machine_alone_is_no_news(host: str) -> None:
    assert is_loopback(host)
    assert list(warnings_of(Settings(host=host), None)) == []


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.0.2.1", "10.0.0.1", "fe80::1%eth0", "example.org", "localhost.example.org"]
)
def test_an_open_service_that_others_reach_is(host: str) -> None:
    (line,) = warnings_of(Settings(host=host, port=9000), None)
    assert f"{host}, port 9000" in line
    assert all(name in line for name in ("SKNET_API_KEYS_FILE", "SKNET_API_KEYS,", "SKNET_HOST"))
    assert list(warnings_of(Settings(host=host), Keys(KEY, None))) == []


def test_a_service_behind_proxies_is_whatever_it_listens_on_itself() -> None:
    (line,) = warnings_of(Settings(), None, behind="the proxies of Ray Serve")
    assert "whoever reaches the proxies of Ray Serve may classify" in line
    assert all(name in line for name in ("SKNET_API_KEYS_FILE", "SKNET_API_KEYS"))
    assert "SKNET_HOST" not in line
    assert list(warnings_of(Settings(), Keys(KEY, None), behind="the proxies of Ray Serve")) == []


def test_open_admin_calls_are_and_where_they_are_not_after_all() -> None:
    (line,) = warnings_of(Settings(open_admin=True), None)
    assert "whoever reaches the service may load and unload models" in line
    (line,) = warnings_of(Settings(open_admin=True), Keys(KEY, None))
    assert "does nothing here" in line


def test_keys_that_everybody_can_read_are(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(KEY)
    file.chmod(0o604)
    settings = Settings(api_keys_file=file)
    (line,) = warnings_of(settings, Keys.of(settings))
    assert str(file) in line
    assert KEY not in line
    file.chmod(0o600)
    assert list(warnings_of(settings, Keys.of(settings))) == []
