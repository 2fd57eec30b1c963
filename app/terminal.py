"""What commands share: flags out of settings, tables, and progress that gives way to lines. Knows no command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from app.settings import Settings, SettingsError, flag, is_secret, load_settings

T = TypeVar("T")


def setting_flags(fields: Iterable[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for each of these settings but secrets. Values are checked by the settings themselves."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed([name for name in fields if not is_secret(name)]):
            field = Settings.model_fields[name]
            default = "" if field.default is None else f"  [default: {field.default}]"
            command = click.option(flag(name), name, default=None, metavar="VALUE", help=f"{field.description}{default}")(command)
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


def progress(items: Sequence[T], what: str = "") -> Iterable[T]:
    """The items, with a bar on a terminal, a line every hundred otherwise, and nothing for a single one. They are images."""
    if len(items) == 1:
        return items
    from tqdm import tqdm

    if sys.stderr.isatty():
        return tqdm(items, desc=what or None, unit="image")
    return _counted(items, f"{what}: " if what else "")


def _counted(items: Sequence[T], prefix: str) -> Iterable[T]:
    for i, item in enumerate(items, start=1):
        yield item
        if i % 100 == 0:
            click.echo(f"{prefix}{i} of {len(items)} images", err=True)


def say(line: str, *, err: bool = False) -> None:
    """Print a line past a progress bar that may be on the screen."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr if err else sys.stdout)
