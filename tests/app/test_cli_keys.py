"""`sknet keys new`: a key, and the line that lets it in."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from app.cli import main
from app.keys import Keys


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", *arguments])


@pytest.mark.parametrize(
    ("arguments", "scopes"),
    [((), {"predict"}), (("--scope", "admin"), {"admin"}), (("--scope", "predict+admin"), {"predict", "admin"})],
)
def test_the_key_and_its_line(arguments: tuple[str, ...], scopes: set[str]) -> None:
    result = run("new", "--name", "web.1", *arguments)
    assert result.exit_code == 0
    key, line = result.stdout.splitlines()
    assert key not in line
    assert key not in result.stderr
    found = Keys(line, None).find(key.encode())
    assert found is not None
    assert (found.name, set(found.scopes), found.plain) == ("web.1", scopes, False)


def test_each_is_new_and_named() -> None:
    lines = [run("new").stdout.splitlines() for _ in range(2)]
    assert lines[0][0] != lines[1][0]
    assert len(Keys(",".join(line for _, line in lines), None)) == 2


@pytest.mark.parametrize("arguments", [("--scope", "root"), ("--name", "a:b"), ("--name", ""), ("--name", "x" * 65)])
def test_what_the_file_could_not_hold_is_not_made(arguments: tuple[str, ...]) -> None:
    result = run("new", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
