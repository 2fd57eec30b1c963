"""What people call a class -> its index: a label, one of its synonyms, an index, or a WordNet id.

Knows nothing of folders, images or networks.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from model.types import Label

_BETWEEN = re.compile(r"[\s_,/-]+")
NEAREST = 3  # names that are suggested


class UnknownClass(LookupError):
    """A name that fits no class. `nearest` are labels that look like it, the likest first."""

    def __init__(self, name: str, nearest: tuple[str, ...]) -> None:
        hint = f": did you mean {' or '.join(map(repr, nearest))}?" if nearest else ", and none is called anything like it"
        super().__init__(f"{name!r} is no class of this model{hint}")
        self.name = name
        self.nearest = nearest


class AmbiguousClass(LookupError):
    """A name of several classes; `indices` are theirs."""

    def __init__(self, name: str, indices: tuple[int, ...], labels: Sequence[Label]) -> None:
        each = [f"{i} ({labels[i].wnid or labels[i].name})" for i in indices]
        super().__init__(
            f"{name!r} is the name of {len(indices)} classes, {', '.join(each[:-1])} and {each[-1]}: "
            f"give the index{' or the WordNet id' if labels[indices[0]].wnid else ''} instead"
        )
        self.name = name
        self.indices = indices


class Classes:
    """The names of a model's classes, to be looked up."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self.labels = tuple(labels)
        # From what names a class best to what may name several. The first of these in which a name stands decides.
        self._tables: tuple[Mapping[str, list[int]], ...] = (
            _table((label.wnid, i) for i, label in enumerate(labels)),
            _table((label.name, i) for i, label in enumerate(labels)),
            _table((_folded(label.name), i) for i, label in enumerate(labels)),
            _table((_folded(word), i) for i, label in enumerate(labels) for word in label.name.split(",")),
        )

    def index_of(self, name: str) -> int:
        """The class that somebody means by `name`: its WordNet id, its label or one of the words between the label's commas
        (whatever the case, and whether a space, a dash or an underscore parts them), or its index.

        Raises:
            AmbiguousClass: several have that name.
            UnknownClass: none has.
        """
        name = name.strip()
        for key, table in zip((name.lower(), name, _folded(name), _folded(name)), self._tables, strict=True):
            found = table.get(key, [])
            if len(found) > 1:
                raise AmbiguousClass(name, tuple(found), self.labels)
            if found:
                return found[0]
        # After the names: labels may be numbers themselves.
        if re.fullmatch(r"[0-9]{1,9}", name) and int(name) < len(self.labels):
            return int(name)
        raise UnknownClass(name, self._nearest(name))

    def __contains__(self, name: object) -> bool:
        """Whether one class or several are called that."""
        try:
            return isinstance(name, str) and self.index_of(name) >= 0
        except AmbiguousClass:
            return True
        except UnknownClass:
            return False

    def _nearest(self, name: str) -> tuple[str, ...]:
        by_word = self._tables[3]
        words = difflib.get_close_matches(_folded(name), by_word, n=NEAREST)
        return tuple(dict.fromkeys(self.labels[by_word[word][0]].name for word in words))


def _folded(name: str) -> str:
    return _BETWEEN.sub(" ", name).strip().casefold()


def _table(pairs: Iterable[tuple[str | None, int]]) -> Mapping[str, list[int]]:
    table: defaultdict[str, list[int]] = defaultdict(list)
    for name, index in pairs:
        if name and index not in table[name]:
            table[name].append(index)
    return dict(table)
