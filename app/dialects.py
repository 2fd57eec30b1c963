"""What a protocol of others adds to the service: its routes, and the paths on which images come. Knows none of them by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fastapi import APIRouter
from pydantic import BaseModel

Plain = Callable[[str, str], bool]  # of a method and a path


def _never(_method: str, _path: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Dialect:
    """One protocol, as the composition root puts it in.

    `inputs` are paths whose POST brings images, as clients write them, each with the most bytes that its body may have.
    `templates` are the same paths as the OpenAPI document has them, where they differ. `admin` are paths that load or unload,
    `unpacked` are inputs whose bodies may come compressed, since their routes unpack them,
    and `probes` those that are asked for readiness and need no key. `tags` are its heads in the OpenAPI document, and `schemas`
    what hand-written parts of its routes refer to there. `plain` tells of a method and a path whether errors there, whichever
    layer answers, are `app.schemas.problem.PlainError` and no problem documents.
    """

    router: APIRouter
    inputs: Mapping[str, int] = field(default_factory=dict)
    templates: frozenset[str] = frozenset()
    unpacked: frozenset[str] = frozenset()
    admin: frozenset[str] = frozenset()
    probes: frozenset[str] = frozenset()
    tags: tuple[Mapping[str, str], ...] = ()
    schemas: tuple[type[BaseModel], ...] = ()
    plain: Plain = _never


def any_plain(dialects: Iterable[Dialect]) -> Plain:
    """Where errors are plain with these protocols on."""
    asked = tuple(dialect.plain for dialect in dialects)
    return lambda method, path: any(each(method, path) for each in asked)
