"""What commands share: flags out of settings, tables, and progress that gives way to lines. Knows no command."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from app.completion import values_of
from app.settings import Settings, SettingsError, flag, is_secret, load_settings
from app.tables import shown

T = TypeVar("T")

MODEL_FIELDS = (
    "checkpoint",
    "variant",
    "labels_file",
    "checkpoint_sha256",
    "cache_dir",
    "device",
    "engine",
    "precision",
    "threads",
    "streams",
    "preprocess",
    "max_pixels",
    "max_side",
    "max_frames",
    "max_metadata_bytes",
    "decode_s",
    "decode_memory_bytes",
)


def setting_flags(fields: Iterable[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for each of these settings but secrets. Values are checked by the settings themselves."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed([name for name in fields if not is_secret(name)]):
            field = Settings.model_fields[name]
            default = "" if field.default is None else f"  [default: {field.default}]"
            text = f"{field.description}{default}"
            option = click.option(flag(name), name, default=None, metavar="VALUE", help=text, shell_complete=values_of(name))
            command = option(command)
        return command

    return decorate


def settings_from(flags: dict[str, Any]) -> Settings:
    """Settings from the flags that were given, over the environment."""
    try:
        return load_settings({name: value for name, value in flags.items() if value is not None})
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def table(rows: Sequence[Sequence[str]], *, widths: Sequence[int] = (), indent: int = 0) -> str:
    """Rows as aligned columns; each at least as wide as `widths` says."""
    if not rows:
        return " " * indent + "(none)"
    columns = [max([len(row[i]) for row in rows] + list(widths[i : i + 1])) for i in range(len(rows[0]))]
    lines = (" " * indent + "  ".join(cell.ljust(columns[i]) for i, cell in enumerate(row)).rstrip() for row in rows)
    return "\n".join(lines)


def progress(items: Iterable[T], what: str = "", *, total: int | None = None) -> Iterable[T]:
    """The items, with a bar on a terminal, a line every hundred or thousand otherwise, nothing for a single one. They are images.

    `total` is how many there are; needless for what knows its length.
    """
    total = len(items) if total is None and isinstance(items, Sized) else total
    if total == 1:
        return items
    from tqdm import tqdm

    if sys.stderr.isatty():
        return tqdm(items, desc=what or None, unit="image", total=total)
    return _counted(items, f"{what}: " if what else "", total)


def _counted(items: Iterable[T], prefix: str, total: int | None) -> Iterable[T]:
    for i, item in enumerate(items, start=1):
        yield item
        if i % (100 if i <= 1000 else 1000) == 0:
            click.echo(f"{prefix}{i} of {total} images" if total is not None else f"{prefix}{i} images", err=True)


def say_fault(name: str, why: str) -> None:
    """Tell on standard error what is the matter with a file, whatever letters its name has, and whoever says it."""
    say(f"{shown(name)}: {shown(' '.join(why.split()))}", err=True)


def say(line: str, *, err: bool = False, end: str = "\n") -> None:
    """Print a line past a progress bar that may be on the screen."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr if err else sys.stdout, end=end)


def spare(output: str | Path | None, sources: Iterable[str | Path], option: str = "--output") -> None:
    """Keep what is written from taking the place of what is read, by whatever name and link.

    Raises:
        click.BadParameter: the output is one of the sources.
    """
    place = None if output is None or str(output) == "-" else _file_of(output)
    if place is not None and any(_file_of(source) == place for source in sources):
        raise click.BadParameter(f"{output}: this is one of the files to be read", param_hint=option)


def _file_of(path: str | Path) -> tuple[int, int] | None:
    try:
        about = Path(path).stat()
    except (OSError, ValueError):  # what is not there is no file that could be lost
        return None
    return (about.st_dev, about.st_ino) if stat.S_ISREG(about.st_mode) else None


@contextmanager
def output_to(path: str | None) -> Iterator[Callable[[str], None]]:
    """What writes text as it is: into a file, or to standard output, past a bar that may be on the screen.

    Raises:
        click.BadParameter: the file cannot be written.
    """
    if path is None or path == "-":
        yield lambda text: say(text, end="") if text else None
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(path).open("w", encoding="utf-8", errors="backslashreplace", newline=""))
        except OSError as error:
            raise click.BadParameter(f"{path}: {error.strerror}", param_hint="--output") from None

        def write(text: str) -> None:
            file.write(text)

        yield write
