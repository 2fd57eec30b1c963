"""How `sknet` itself behaves: it helps where it is given nothing, tells every error in one line, and ends as a program should.

Exit status: 0 done, 1 something went wrong, 2 called wrongly, 130 interrupted. Who closes a pipe that is written to has enough:
that is no error. Knows no command.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from app.tables import shown
from model.errors import ModelError

INTERRUPTED = 130  # 128 and the number of SIGINT, as shells count


class WrongCall(click.ClickException):
    """What was asked for cannot be done as it was asked for, though the flags are in order: no such path, say."""

    exit_code = 2


class Program(click.Group):
    """A group of commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's, but nothing at all is a question, not a mistake."""
        _open_what_is_closed()
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _brief(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and say in a line what stopped it."""
        try:
            value = super().invoke(ctx)
            sys.stdout.flush()  # here, where a closed pipe is still caught
        except click.UsageError as error:
            raise _brief(error) from None
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)  # the terminal has written ^C into the line before
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            _write_nowhere()
            ctx.exit()
        except ModelError as error:
            raise click.ClickException(_one_line(str(error))) from None
        except click.ClickException as error:
            raise _printable(error) from None
        except OSError as error:
            raise click.ClickException(_of_system(error)) from None
        except MemoryError:
            raise click.ClickException("there is not enough memory") from None
        else:
            return value


def _printable(error: click.ClickException) -> click.ClickException:
    """The same with a text for any terminal: it may hold the name of a file, or what a service says."""
    kind = WrongCall if error.exit_code == WrongCall.exit_code else click.ClickException
    return kind(_one_line(error.format_message()))


def _open_what_is_closed() -> None:
    """A stream that the caller has closed (`2>&-`) is None here, and its number would go to the next file that is opened: from
    now on it is one that holds nothing.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - as long as the process


def _brief(error: click.UsageError) -> WrongCall:
    """A line where click would print how the command is used, in four."""
    path = error.ctx.command_path if error.ctx is not None else "sknet"
    return WrongCall(f"{_one_line(error.format_message())} (see {path} --help)")


def _write_nowhere() -> None:
    """What is still to be written to standard output goes to nobody, or the interpreter would say so at its end."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # it is no file of the system's
        pass


def _of_system(error: OSError) -> str:
    reason = error.strerror or _one_line(str(error)) or type(error).__name__
    return _one_line(f"{os.fsdecode(error.filename)}: {reason}" if isinstance(error.filename, str | bytes) else reason)


def _one_line(text: str) -> str:
    """Of what can be printed: no text moves the cursor of a terminal."""
    return shown(" ".join(text.split()))
