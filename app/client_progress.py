"""How far many images are: told to a function, drawn as a bar, or not at all."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = "bool | Callable[[int, int | None], object]"  # the second: (images done, of how many, where that is known)


@contextmanager
def shown(progress: Progress, images: object) -> Iterator[Callable[[], None]]:
    """A function to be called once an image is done. A bar goes to standard error."""
    total = operator.length_hint(images) or None
    if callable(progress):
        yield _counting(progress, total)
    elif progress:
        from tqdm import tqdm

        with tqdm(total=total, unit="image") as bar:
            yield _counting(lambda *_: bar.update(), total)
    else:
        yield lambda: None


def _counting(tell: Callable[[int, int | None], object], total: int | None) -> Callable[[], None]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        tell(done, total)

    return count
