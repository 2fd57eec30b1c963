"""Who classifies the images of a command: a model loaded here, or a running service; by which flags that is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import click

from app.answers import Answer, Backend, Gone
from app.image_files import Source
from app.settings import CLIENT_KEY, Settings, client_key, flag
from app.terminal import MODEL_FIELDS, progress, setting_flags, settings_from

MOST_KEY_BYTES = 10_000


def backend_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--server`, `--key-file` and the settings of a model."""
    command = setting_flags(MODEL_FIELDS)(command)
    command = click.option(
        "--key-file",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        help=f"File with the service's key; the variable {CLIENT_KEY} may hold it as well. No flag, which others could read.",
    )(command)
    return click.option("--server", metavar="URL", help="Ask the service at this address instead of loading a model here.")(
        command
    )


def backend(server: str | None, key_file: str | None, flags: dict[str, Any]) -> Callable[[], Backend]:
    """What makes what the flags ask for; making it takes seconds, and may raise ModelError or click.ClickException.

    Raises:
        click.UsageError: flags that contradict each other, or a key that cannot be used.
    """
    check(server, key_file, flags)
    if server is None:
        settings = settings_from(flags)
        return lambda: _here(settings)
    key = service_key(key_file)
    return lambda: _there(server, key)


def check(server: str | None, key_file: str | None, flags: dict[str, Any]) -> None:
    """Raises UsageError for flags of `backend_flags` that contradict each other."""
    if server is None and key_file is not None:
        raise click.UsageError("--key-file is for a service: give --server as well")
    given = [flag(name) for name in MODEL_FIELDS if flags.get(name) is not None]
    if server is not None and given:
        raise click.UsageError(f"{given[0]} is about a model loaded here; with --server the service has its own")


@contextmanager
def answers(model: Backend, sources: Sequence[Source], *, k: int, attention: bool = False) -> Iterator[Iterable[Answer]]:
    """The answers to all of these, while progress is shown. Leaving stops what is under way.

    Raises:
        click.ClickException: in the middle of it, nothing more could be classified.
    """
    done = 0

    def counted(each: Iterable[Answer]) -> Iterator[Answer]:
        nonlocal done
        for answer in each:
            done += 1
            yield answer

    with closing(model.classify(sources, k=k, attention=attention)) as found:
        try:
            yield progress(counted(found), total=len(sources))
        except Gone as error:
            raise click.ClickException(f"{error}: stopped after {done} of {len(sources)} images") from None


def _here(settings: Settings) -> Backend:
    from app.local import Local
    from app.main import load_model

    return Local(load_model(settings))


def _there(server: str, key: str | None) -> Backend:
    from app.remote import Remote

    try:
        return Remote(server, key)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except Gone as error:
        raise click.ClickException(str(error)) from None


def service_key(key_file: str | None) -> str | None:
    """The key for a service: the first line of this file, or where none is named what the environment holds.

    Raises:
        click.UsageError: the first line is no key.
    """
    return client_key() if key_file is None else _first_line(key_file)


def _first_line(path: str) -> str:
    with click.open_file(path, "rb") as file:
        data: bytes = file.read(MOST_KEY_BYTES)
    line = data.partition(b"\n")[0].strip().decode("ascii", "replace")
    if not line or not line.isascii():
        raise click.UsageError(f"--key-file {path}: its first line is no key")
    return line
