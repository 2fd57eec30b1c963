"""What a shell may offer behind a flag: the values of settings. Asked at every press of a key: nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from app.settings import Settings
from model.registry import ALIASES, VARIANTS, WEIGHTS

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem[Any]]]


def values_of(field: str) -> Complete:
    """What completes the value of a setting: nothing where it may be any text or number."""

    def complete(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem[Any]]:
        return _values(field, begun)

    return complete


def _values(field: str, begun: str) -> list[CompletionItem[Any]]:
    annotation = Settings.model_fields[field].annotation
    if field == "checkpoint":
        # Names or files: bash's script forgets the names where it is told of files as well.
        return _beginning([*_bundled(), *WEIGHTS, "hf-hub:"], begun) or [CompletionItem(begun, type="file")]
    if field == "variant":
        return _beginning([*VARIANTS, *ALIASES], begun)
    if field == "device":
        return _beginning(["auto", "cpu", "cuda"], begun)
    if get_origin(annotation) is Literal:
        return _beginning(get_args(annotation), begun)
    if annotation is bool:
        return _beginning(["true", "false"], begun)
    if Path in (annotation, *get_args(annotation)):
        return [CompletionItem(begun, type="dir" if field.endswith("_dir") else "file")]
    return []


def _bundled() -> list[str]:
    from model.reference import bundled_names

    return [f"bundled:{name}" for name in bundled_names()]


def _beginning(values: Iterable[str], begun: str) -> list[CompletionItem[Any]]:
    return [CompletionItem(value) for value in values if value.startswith(begun)]
