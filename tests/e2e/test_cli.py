"""The command line as people run it: a process of its own, here and against a real service."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.server import Server, command, environment, serve
from tests.images import encode, photograph

pytestmark = pytest.mark.e2e

KEY = "a-key-of-16-chars"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders named by class: a cat in four sizes, and what is none of the ten classes under the name of one."""
    root = tmp_path_factory.mktemp("photographs")
    for folder, name, sizes in (("cat", "chelsea", (32, 48, 200, 300)), ("automobile", "coffee", (64, 128))):
        (root / folder).mkdir()
        for size in sizes:
            (root / folder / f"{size}.jpg").write_bytes(encode(photograph(name, (size, size)), "JPEG", quality=95))
    (root / "cat" / "damaged.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return root


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=100, check=False, env=environment(**variables)
    )


def test_a_service_answers_as_this_process_does(server: Server, photographs: Path) -> None:
    arguments = ("classify", str(photographs), "--json", "--explain", "--top-k", "3")
    here, there = run(*arguments), run(*arguments, "--server", server.url)
    assert (here.returncode, there.returncode) == (1, 1)
    ours, theirs = ([json.loads(line) for line in done.stdout.splitlines()] for done in (here, there))
    assert [each["file"] for each in ours] == [each["file"] for each in theirs]
    assert len(ours) == 7
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        if "error" in one:
            assert one == other
            continue
        assert one["image"] == other["image"]
        assert [p["index"] for p in one["predictions"]] == [p["index"] for p in other["predictions"]]
        assert [p["score"] for p in one["predictions"]] == pytest.approx([p["score"] for p in other["predictions"]], abs=1e-3)
        shares = [[unit["mean_attention"] for unit in each["kernel_attention"]] for each in (one, other)]
        assert shares[0] == [pytest.approx(unit, abs=1e-3) for unit in shares[1]]
    assert there.stderr.splitlines()[-1] == "Error: 1 of 7 images could not be classified"


def test_evaluating_through_a_service_gives_the_same_figures(server: Server, photographs: Path) -> None:
    here, there = (
        json.loads(run("evaluate", str(photographs), "--json", *more).stdout) for more in ((), ("--server", server.url))
    )
    assert here.pop("runs").startswith("in this process: ")
    assert there.pop("runs").startswith(f"at {server.url}: ")
    assert here == there
    assert (there["images"], there["failed"]) == (6, 1)
    assert [each["label"] for each in there["classes"]] == ["automobile", "cat"]


def test_a_key_from_the_environment_or_a_file(photographs: Path, tmp_path: Path) -> None:
    image = str(photographs / "cat" / "300.jpg")
    (tmp_path / "key").write_text(KEY + "\n")
    with serve(SKNET_API_KEYS=KEY) as server:
        refused = run("classify", image, "--server", server.url)
        assert (refused.returncode, refused.stdout) == (1, "")
        (line,) = refused.stderr.splitlines()
        assert line.startswith("Error: ")
        assert "key" in line
        given = run("classify", image, "--server", server.url, "--key-file", str(tmp_path / "key"))
        from_environment = run("classify", image, "--server", server.url, SKNET_CLIENT_KEY=KEY)
        assert (given.returncode, from_environment.returncode) == (0, 0), given.stderr
        assert given.stdout == from_environment.stdout
        assert not any(KEY in line for line in server.lines)


def test_an_interrupt_ends_it_with_a_line(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{photographs}/cat/300.jpg\n" * 100_000)
    process = subprocess.Popen(
        command("classify", "--paths-from", str(tmp_path / "list")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()  # it is at work
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors


def test_a_reader_that_has_enough_ends_it_quietly(photographs: Path) -> None:
    pipe = subprocess.Popen(
        command("classify", *[str(photographs / "cat" / "32.jpg")] * 3000, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with pipe:
        assert pipe.stdout is not None
        assert pipe.stderr is not None
        assert json.loads(pipe.stdout.readline())["predictions"]
        pipe.stdout.close()
        errors = pipe.stderr.read()
        assert pipe.wait(60) == 0
    assert [line for line in errors.splitlines() if not line.endswith(" of 3000 images")] == []


def test_a_port_that_is_taken_is_one_line(server: Server) -> None:
    done = run("serve", "--port", str(server.port), SKNET_LOG_FORMAT="console")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert f"cannot listen on 127.0.0.1, port {server.port}: address already in use" in done.stderr
