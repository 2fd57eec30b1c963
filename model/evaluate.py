"""Rankings of images whose class is known -> how often they are right, class by class.

Counts and their uncertainty; knows nothing of images, networks or where the rankings came from.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Z = 1.959964  # of the normal distribution: 95 % lie within so many standard deviations
K = 5


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `count`, and between what bounds the true share lies with 95 % confidence; all of them 0..1."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        """0 where there is nothing to count."""
        return self.hits / self.count if self.count else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """The Wilson score interval (E. B. Wilson, JASA 22, 1927), which holds for few images and near 0 and 1 as well."""
        n, p = self.count, self.value
        if not n:
            return 0.0, 1.0
        middle = p + Z**2 / (2 * n)
        half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        scale = 1 + Z**2 / n
        low, high = (middle - half) / scale, (middle + half) / scale
        return (0.0 if not self.hits else low), (1.0 if self.hits == n else high)  # exact there, but for rounding


@dataclass(frozen=True, slots=True)
class ClassShare:
    """One class: of its images, those it was first for, and among the first k; what it was most often taken for instead."""

    index: int
    first: Share
    among: Share
    taken_for: tuple[int, int] | None  # (index of another class, of how many images); None: never mistaken


class Evaluation:
    """Counts over images, added one by one. Takes memory for what was seen, not for every pair of classes.

    Args:
        num_classes: of the model.
        k: how many classes of a ranking are looked at besides the first.
    """

    def __init__(self, num_classes: int, k: int = K) -> None:
        self.num_classes = num_classes
        self.k = min(k, num_classes)
        self._firsts: defaultdict[int, Counter[int]] = defaultdict(Counter)  # class -> what came first for its images
        self._among: Counter[int] = Counter()

    def add(self, true: int, ranking: Sequence[int]) -> None:
        """Count one image: the index of its class, and those of its ranking, best first.

        Raises:
            ValueError: an empty ranking, or an index that no class has.
        """
        if not ranking or not all(0 <= index < self.num_classes for index in (true, *ranking)):
            allowed = f"one index or more from 0 to {self.num_classes - 1}"
            raise ValueError(f"class {true} with the ranking {list(ranking)}: {allowed} may be counted")
        self._firsts[true][ranking[0]] += 1
        self._among[true] += true in ranking[: self.k]

    @property
    def first(self) -> Share:
        """Images whose class came first."""
        return _sum(each.first for each in self.classes)

    @property
    def among(self) -> Share:
        """Images whose class was among the first k."""
        return _sum(each.among for each in self.classes)

    @property
    def classes(self) -> tuple[ClassShare, ...]:
        """Each class that has images, by index."""
        return tuple(self._of(index) for index in sorted(self._firsts))

    def confusion(self) -> tuple[tuple[int, ...], npt.NDArray[np.int64]]:
        """(the N classes that have images, counts (N, N + 1)): a row each, a column for each of them that came first, and a last
        one for all others."""
        classes = tuple(sorted(self._firsts))
        column = {index: i for i, index in enumerate(classes)}
        counts = np.zeros((len(classes), len(classes) + 1), dtype=np.int64)
        for row, index in enumerate(classes):
            for first, count in self._firsts[index].items():
                counts[row, column.get(first, len(classes))] += count
        return classes, counts

    def _of(self, index: int) -> ClassShare:
        firsts = self._firsts[index]
        count = firsts.total()
        # Of several that are as many, the lowest index.
        others = sorted((-images, other) for other, images in firsts.items() if other != index)
        taken_for = (others[0][1], -others[0][0]) if others else None
        return ClassShare(index, Share(firsts[index], count), Share(self._among[index], count), taken_for)


def _sum(shares: Iterable[Share]) -> Share:
    pairs = [(share.hits, share.count) for share in shares]
    return Share(sum(hits for hits, _ in pairs), sum(count for _, count in pairs))
