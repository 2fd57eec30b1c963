"""Keys in a real service: a file that changes under it, what it warns of, what no process list shows, starts that must fail."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.bad_inputs import jpeg
from tests.e2e.server import Server, command, environment, serve

pytestmark = pytest.mark.e2e

OLD, NEW, OPS = "the-old-key-of-somebody", "the-new-key-of-somebody", "the-key-of-an-operator"
WITHIN_S = 15


def classify(server: Server, key: str | None) -> int:
    headers = {"Content-Type": "image/jpeg"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
    with server.client() as client:
        return client.post("/classify", content=jpeg(), headers=headers).status_code


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end, f"not within {WITHIN_S} s"
        time.sleep(0.1)


def command_lines() -> str:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    return "\n".join(found)


def warnings(server: Server) -> list[str]:
    return [str(record["message"]) for record in server.records() if record["level"] == "warning"]


def test_keys_change_without_a_restart_in_every_worker(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"somebody:predict:{OLD}\n")
    file.chmod(0o644)
    with serve("--workers", "2", SKNET_API_KEYS=f"ops:admin:{OPS}", SKNET_API_KEYS_FILE=str(file)) as server:
        wait_for(lambda: sum("is ready" in line for line in server.lines) == 2)
        assert [classify(server, key) for key in (None, OLD, NEW, OPS)] == [401, 200, 401, 403]
        with server.client() as client:
            for path in ("/readyz", "/livez", "/metrics", "/docs", "/openapi.json", "/"):
                assert client.get(path).status_code == 200
            assert client.get("/%2e%2e/models").status_code == 401
            raw = httpx.Request("GET", server.url, extensions={"target": b"//models/../models"})
            assert client.send(raw).status_code == 401
        shown = command_lines()
        assert shown.count("app.process") >= 2
        assert not [key for key in (OLD, OPS) if key in shown]

        file.with_name("next").write_text(f"somebody:predict:{NEW}\n")
        file.with_name("next").replace(file)
        wait_for(lambda: sum("keys were read again" in line for line in server.lines) == 2)
        assert [classify(server, key) for key in (NEW, OLD, NEW, OLD, OPS)] == [200, 401, 200, 401, 403]

        file.write_text(f"{OLD}\nshort\n")
        wait_for(lambda: sum("the keys stay as they were" in line for line in server.lines) == 2)
        assert any("line 2" in line for line in server.lines)
        assert [classify(server, key) for key in (NEW, OLD)] == [200, 401]

        assert [line for line in warnings(server) if "chmod" in line] == warnings(server)
        assert len(warnings(server)) == 1  # not once a worker
        assert server.stop() == 0
        log = "\n".join(server.lines)
        assert not [key for key in (OLD, NEW, OPS) if key in log]
        names = [record.get("key") for record in server.records() if record.get("path") == "/classify"]
        assert set(names) == {None, "somebody", "ops"}


def test_an_open_service_on_every_interface_says_so() -> None:
    with serve("--host", "0.0.0.0", "--checkpoint", "bundled:nope", wait=False, SKNET_OPEN_ADMIN="1") as server:
        server.process.wait(60)
    said = warnings(server)
    assert len(said) == 2
    assert "there are no API keys: whoever reaches 0.0.0.0" in said[0]
    assert "SKNET_OPEN_ADMIN" in said[1]


def test_keys_that_cannot_be_used_do_not_start(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nsomebody:predict:short\n")
    done = subprocess.run(
        command("serve", "--port", "0", "--api-keys-file", str(file)),
        capture_output=True, text=True, timeout=60, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"Error: SKNET_API_KEYS_FILE ({file}), line 2: a key has 16 to 512 characters")
    assert "short" not in last
