"""How the program behaves whatever the command: help, one line an error, interrupts, closed pipes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from app.program import Program, WrongCall
from model.errors import CheckpointCorrupt


def run(error: BaseException | None, *arguments: str) -> Result:
    @click.group(cls=Program)
    def main() -> None:
        """A program."""

    @main.command()
    @click.option("--count", type=int)
    def act(count: int | None) -> None:
        """Act."""
        if error is not None:
            raise error
        click.echo(f"done {count}")

    return CliRunner().invoke(main, arguments or ("act",), prog_name="sknet")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (CheckpointCorrupt("damaged\nin two lines"), 1, "Error: damaged in two lines"),
        (PermissionError(13, "Permission denied", "/a/file"), 1, "Error: /a/file: Permission denied"),
        (OSError(28, "No space left on device"), 1, "Error: No space left on device"),
        (FileNotFoundError(2, "No such file or directory", "a\x1b[2J\nb"), 1, "Error: a\\x1b[2J b: No such file or directory"),
        (MemoryError(), 1, "Error: there is not enough memory"),
        (click.ClickException("it failed"), 1, "Error: it failed"),
        (click.ClickException("the service says \x1b[2J\x9b\r\n\u202e"), 1, "Error: the service says \\x1b[2J\\x9b \\u202e"),
        (WrongCall("no such thing"), 2, "Error: no such thing"),
        (WrongCall("there is no a\nb\x1b"), 2, "Error: there is no a b\\x1b"),
        (click.UsageError("too many"), 2, "Error: too many (see sknet act --help)"),
    ],
)
def test_errors_are_one_line(error: BaseException, status: int, line: str) -> None:
    result = run(error)
    assert (result.exit_code, result.stderr, result.stdout) == (status, f"{line}\n", "")


def test_an_interrupt_is_130_and_a_line_behind_the_terminals_own() -> None:
    result = run(KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "\ninterrupted\n")


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    result = run(RuntimeError("a bug"))
    assert isinstance(result.exception, RuntimeError)


def test_wrong_flags_are_one_line() -> None:
    for arguments, says in (
        (("act", "--count", "x"), "Error: Invalid value for '--count': 'x' is not a valid integer. (see sknet act --help)\n"),
        (("act", "--bogus"), "Error: No such option '--bogus'. (see sknet act --help)\n"),
        (("bogus",), "Error: No such command 'bogus'. (see sknet --help)\n"),
    ):
        result = run(None, *arguments)
        assert (result.exit_code, result.stderr) == (2, says)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_streams_of_nothing(closed: str, tmp_path: Path) -> None:
    """And no file that is opened later has their number: what is written to them does not end in it."""
    code = (
        "import sys\nimport click\nfrom app.program import Program\n"
        "@click.group(cls=Program)\ndef main(): pass\n"
        "@main.command()\n@click.argument('out')\ndef act(out):\n"
        "    with open(out, 'wb') as file:\n"
        "        sys.stdin.isatty(), sys.stdout.isatty(), sys.stderr.isatty(), print('a line')\n"
        "        file.write(repr((file.fileno() > 2, sys.stdin.read())).encode())\n"
        "main()"
    )
    out = tmp_path / "out"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code, "act", str(out)]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert out.read_text() == "(True, '')"


def test_a_command_that_works_is_left_alone() -> None:
    result = run(None, "act", "--count", "3")
    assert (result.exit_code, result.output) == (0, "done 3\n")


@pytest.mark.parametrize("lines", [1, 200_000])
def test_a_closed_pipe_ends_it_quietly(lines: int) -> None:
    """Also where all was still in the buffer when the reader went."""
    code = (
        "import click\nfrom app.program import Program\n"
        "@click.group(cls=Program)\ndef main(): pass\n"
        "@main.command()\ndef act():\n"
        "    input()\n"
        f"    for i in range({lines}): print('a line', i)\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "act"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before the first line is written
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0
