"""`sknet classify`: images on the command line -> a table, JSON lines or CSV, by a model loaded here or by a service."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from app.backends import answers, backend, backend_flags
from app.program import WrongCall
from app.terminal import output_to, say_fault, settings_from, spare

if TYPE_CHECKING:
    from app.image_files import Source
    from app.paths import Found
    from app.tables import Form

FORMS = (
    click.option("--json", "as_json", is_flag=True, help="One JSON object a line and image, instead of a table."),
    click.option("--csv", "as_csv", is_flag=True, help="CSV, a row for each class of each image, instead of a table."),
    click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write there, not to standard output."),
    click.option("--top-k", "top_k", default=None, metavar="VALUE", help="How many classes to show.  [default: 5]"),
    click.option(
        "--min-score", type=click.FloatRange(0, 1), default=0.0, metavar="VALUE", help="Leave out classes of a lower score."
    ),
    click.option("--explain", is_flag=True, help="Add kernel attention to each object of --json."),
)


def _all_of(options: tuple[Callable[..., Any], ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command()
@click.argument("paths", nargs=-1, type=click.Path())
@click.option(
    "--paths-from",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Classify the files that this list names, one a line; - for standard input.",
)
@click.option("-0", "--null", "nul", is_flag=True, help="Each path of the list ends with a zero byte, as of find -print0.")
@_all_of(FORMS)
@backend_flags
def classify(
    paths: tuple[str, ...],
    paths_from: str | None,
    nul: bool,
    as_json: bool,
    as_csv: bool,
    output: str | None,
    top_k: str | None,
    min_score: float,
    explain: bool,
    server: str | None,
    key_file: str | None,
    **flags: Any,
) -> None:
    """Classify images: files, folders with all below, quoted patterns such as 'trip/**/*.jpg', or - for one on standard input.

    In folders and patterns, what has an image's suffix counts, and hidden files do not.

    Exit status: 0 where all were classified, 1 where some could not be, 2 where the call is wrong, 130 where it was interrupted.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv: give one of them")
    if explain and not as_json:
        raise click.UsageError("--explain is told in JSON: give --json as well")
    k = settings_from({"top_k": top_k}).top_k
    if key_file == "-" and "-" in (*paths, paths_from):
        raise click.UsageError("--key-file -: standard input is " + ("the list" if paths_from == "-" else "an image"))
    start = backend(server, key_file, flags)
    found = _found(paths, paths_from, nul=nul)
    spare(output, [source.name for source in found.sources] + ([paths_from] if paths_from is not None else []))
    with ExitStack() as stack:
        form = _form(found, min_score, as_json=as_json, as_csv=as_csv, to_file=output is not None)
        model = stack.enter_context(start())
        write = stack.enter_context(output_to(output))
        each = stack.enter_context(answers(model, found.sources, k=k, attention=explain))
        write(form.head())
        for place, why in found.faults:
            say_fault(place, why)
        failed = len(found.faults)
        for answer in each:
            write(form.text(answer))
            if answer.error is not None:
                say_fault(answer.name, answer.error)
                failed += 1
    if failed:
        raise click.ClickException(f"{failed} of {len(found.sources) + len(found.faults)} images could not be classified")


def _found(paths: tuple[str, ...], paths_from: str | None, *, nul: bool) -> Found:
    """Raises UsageError where there is nothing to classify."""
    from app.image_files import Unreadable, read_stdin
    from app.paths import STDIN, NoImages, find, listed

    if not paths and paths_from is None:
        raise click.UsageError("Missing argument 'PATHS...': files, folders, patterns, or - for standard input")
    if nul and paths_from is None:
        raise click.UsageError("-0 is about the list of --paths-from: give it as well")
    if STDIN in paths and (paths_from == STDIN or sys.stdin.isatty()):
        raise click.UsageError("- is an image on standard input, which is " + ("the list" if paths_from else "a terminal"))
    try:
        found = find(paths)
    except NoImages as error:
        raise WrongCall(str(error)) from None
    except OSError as error:  # a name that is too long, say
        raise WrongCall(f"{error.filename}: {error.strerror}") from None
    if paths_from is not None:
        try:
            with click.open_file(paths_from, "rb") as file:
                found.sources.extend(listed(file, nul=nul))
        except NoImages as error:
            raise WrongCall(str(error)) from None
        except OSError as error:
            raise WrongCall(f"--paths-from {paths_from}: {error.strerror}") from None
    if not found.sources and not found.faults:
        raise WrongCall(f"--paths-from {paths_from}: there are no paths in it")
    try:
        found.sources[:] = [_in_hand(source) if source.reader is read_stdin else source for source in found.sources]
    except Unreadable as error:
        raise WrongCall(f"standard input: {error}") from None
    return found


def _in_hand(source: Source) -> Source:
    """The same, read now: a thread that waits for standard input could not be interrupted."""
    data = source.read()
    return replace(source, reader=lambda _name: data)


def _form(found: Found, min_score: float, *, as_json: bool, as_csv: bool, to_file: bool) -> Form:
    from app.tables import Csv, JsonLines, Table

    if as_json:
        return JsonLines(min_score)
    if as_csv:
        return Csv(min_score)
    fits = not to_file and sys.stdout.isatty()
    return Table((s.name for s in found.sources), min_score, shutil.get_terminal_size().columns if fits else None)
