"""Class index -> label: the ImageNet-1k table, label files, and the label fields of configurations.

Knows nothing of networks, weights or where a configuration came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

from model.errors import CheckpointCorrupt, CheckpointNotFound
from model.types import Label

_WNID = re.compile(r"n\d{8}")


@cache
def imagenet1k() -> tuple[Label, ...]:
    """The 1000 classes in the order of the published classifiers' outputs: WordNet ids sorted.

    Names are not unique (134 and 517 are both "crane"); ids are. Source and licence: `model/data/LICENSE.imagenet1k`.
    """
    table = files("model").joinpath("data/imagenet1k.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines()[1:])
    return tuple(Label(name, wnid) for wnid, name in rows)


@cache
def _imagenet1k_names() -> Mapping[str | None, str]:
    return {label.wnid: label.name for label in imagenet1k()}


def parse_labels(value: object, descriptions: Mapping[str, str] | None = None) -> tuple[Label, ...]:
    """Labels from a list of names or of {"name", "wnid"}, or from {"0": name, "1": name, ...}.

    A name that is itself a WordNet id is replaced by its description, or by ImageNet-1k's words for it.

    Raises:
        CheckpointCorrupt: another shape, a gap in the numbers, or an empty name; the text says at which class.
    """
    if isinstance(value, dict):
        value = _in_order(value)
    if not isinstance(value, list | tuple):
        raise CheckpointCorrupt(f'labels must be a list of names or {{"0": name, ...}}, not {type(value).__name__}')
    if not value:
        raise CheckpointCorrupt("the list of labels is empty")
    return tuple(_label(i, item, descriptions or {}) for i, item in enumerate(value))


def read_labels(path: Path) -> tuple[Label, ...]:
    """Labels from a file: one name a line, a JSON list, JSON {"0": name}, or lines of WordNet id, tab, name.

    Raises:
        CheckpointNotFound: no such file.
        CheckpointCorrupt: not UTF-8, or none of these forms.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise CheckpointCorrupt(f"the labels file {path} is not UTF-8 text") from error
    except OSError as error:
        raise CheckpointNotFound(f"the labels file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointNotFound(f"the labels file {str(path)!r} cannot be read: no file can have that name") from error
    try:
        if text[:1] in ("[", "{"):
            return parse_labels(json.loads(text))
        return parse_labels([_from_line(line) for line in text.splitlines()])
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise CheckpointCorrupt(f"the labels file {path} is not valid JSON: {error}") from error
    except CheckpointCorrupt as error:
        raise CheckpointCorrupt(f"the labels file {path}: {error}") from error


def _from_line(line: str) -> object:
    wnid, tab, name = line.partition("\t")
    return {"name": name.strip(), "wnid": wnid} if tab and _WNID.fullmatch(wnid) else line.strip()


def _in_order(named: dict[object, object]) -> list[object]:
    numbers = [str(i) for i in range(len(named))]
    missing = [n for n in numbers if n not in named]
    if missing:
        raise CheckpointCorrupt(f"{len(named)} labels are given by number, but there is none for class {missing[0]}")
    return [named[n] for n in numbers]


def _label(index: int, item: object, descriptions: Mapping[str, str]) -> Label:
    name, wnid = (item.get("name"), item.get("wnid")) if isinstance(item, dict) else (item, None)
    if not isinstance(name, str) or not name.strip() or not isinstance(wnid, str | None):
        raise CheckpointCorrupt(f"the label of class {index} is {item!r}: give a name")
    if wnid is None and _WNID.fullmatch(name):
        wnid, name = name, _words(name, descriptions)
    return Label(name, wnid)


def _words(wnid: str, descriptions: Mapping[str, str]) -> str:
    return descriptions.get(wnid) or _imagenet1k_names().get(wnid) or wnid
