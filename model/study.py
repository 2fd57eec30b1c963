"""The paper's analysis over a folder of photographs: mean attention difference per class and unit, with the centre enlarged.

Section 4.4 and figures 3 and 4 of Li et al., "Selective Kernel Networks", CVPR 2019. Sub-folders are classes; without any, the
folder is one class. Means are over the images, in float64, of the numbers that an explanation of each image shows: nothing is
weighted or rescaled. This file knows nothing of terminals or figures.
"""

from __future__ import annotations

import csv
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from model.errors import ImageError
from model.explain import SCALES
from model.folders import Fault, Folder, entries, files_below, is_folder, reason, start
from model.types import KernelAttention, ModelInfo

ALL = None  # the class of the means over all images: no folder has that name
ALL_NAME = "(all)"  # and what it is called in a file
MAX_FILE_BYTES = 100_000_000  # a film among the photographs is not read into memory
_AHEAD = 2  # images under way for each stream of the engine

Progress = Callable[[Sequence[Any], str], Iterable[Any]]
Skipped = Callable[[Path, str], None]


class Explains(Protocol):
    """What a study needs of a model; `model.manager.LoadedModel` does it."""

    info: ModelInfo

    def explain_items(self, data: bytes) -> Sequence[Any]: ...
    def run(self, items: Sequence[Any]) -> Sequence[Any]: ...
    def attention(self, row: Any) -> KernelAttention: ...


@dataclass(frozen=True, slots=True)
class ClassFiles:
    """The files of one class, in the order in which they are read."""

    name: str
    files: tuple[Path, ...]
    faults: tuple[Fault, ...] = ()  # folders that cannot be listed


@dataclass(frozen=True, slots=True)
class Mean:
    """What one unit chose over the images of a class, at one scale. `std` is over the images, with N in the denominator."""

    class_name: str | None  # `ALL`, or a class
    unit: str
    module: str
    scale: float
    images: int
    mean_difference: float
    std: float
    mean_shares: tuple[float, ...]  # of each kernel


@dataclass(frozen=True)
class Study:
    """A mean for each class (`ALL` first), scale and unit, in that order."""

    means: tuple[Mean, ...]
    classes: tuple[str, ...]  # with at least one image, without `ALL`
    kernel_sizes: tuple[int, ...]
    comparable_to_paper: bool
    reason: str
    variant: str
    digest: str

    def of(self, class_name: str | None, scale: float) -> tuple[Mean, ...]:
        """The units of a class at a scale, in network order."""
        return tuple(mean for mean in self.means if mean.class_name == class_name and mean.scale == scale)


def classes_of(folder: Path, *, limit: int | None = None, only: Sequence[str] = ()) -> tuple[ClassFiles, ...]:
    """The classes of a folder and their files, with everything below; hidden ones are left out.

    Args:
        limit: files of a class at most, the same ones each time, from all over it.
        only: names of the classes wanted; all of them where empty.

    Raises:
        ImageError: no folder, no files, or no class of a name.
    """
    if not is_folder(folder):
        raise ImageError(f"{folder} is no folder")
    faults: list[Fault] = []
    try:
        inside = entries(start(str(folder)), faults)
    except OSError as error:
        raise ImageError(f"{folder}: {reason(error)}") from error
    if faults and not inside:
        raise ImageError(f"{faults[0][0]}: {faults[0][1]}")
    found = {each.name: each.folder for each in inside if each.folder is not None and not each.name.startswith(".")}
    broken = {Path(place).name: place for place, _ in faults}  # links that lead nowhere: told as classes without files
    places: dict[str, str | Folder] = {**found, **broken} if found else {folder.resolve().name: str(folder)}
    missing = [name for name in only if name not in places]
    if missing:
        known = ", ".join(list(places)[:20]) + (", ..." if len(places) > 20 else "")
        raise ImageError(f"there is no class {missing[0]!r} in {folder}: the classes are {known}")
    classes = tuple(_class(name, path, limit) for name, path in places.items() if not only or name in only)
    if not any(each.files or each.faults for each in classes):
        raise ImageError(f"{folder} has no files")
    return classes


def study(model: Explains, classes: Sequence[ClassFiles], *, progress: Progress, skipped: Skipped) -> Study:
    """Explain every image, as many side by side as the engine likes, and take means.

    Args:
        progress: called with a sequence and a word for what is done to it; gives it back item by item.
        skipped: told of each file that is no usable image, with the reason.

    Raises:
        ImageError: not one usable image.
        EngineError: the engine failed.
    """
    for place, why in (fault for each in classes for fault in each.faults):
        skipped(Path(place), why)
    tasks = [(each.name, path) for each in classes for path in each.files]
    seen: dict[str, list[NDArray[np.float64]]] = {}
    attention: KernelAttention | None = None
    for (name, path), outcome in zip(tasks, _measured(model, [path for _, path in tasks], progress), strict=True):
        if isinstance(outcome, str):
            skipped(path, outcome)
            continue
        attention = outcome[0]
        seen.setdefault(name, []).append(_numbers(outcome))
    if attention is None:
        raise ImageError(f"none of {len(tasks)} files is a usable image")
    stacks = {name: np.stack(numbers) for name, numbers in seen.items()}
    groups: list[tuple[str | None, NDArray[np.float64]]] = [(ALL, np.concatenate(list(stacks.values()))), *stacks.items()]
    return Study(
        means=tuple(mean for name, stack in groups for mean in _means(name, stack, attention)),
        classes=tuple(stacks),
        kernel_sizes=attention.units[0].kernel_sizes,
        comparable_to_paper=attention.comparable_to_paper,
        reason=attention.reason,
        variant=model.info.variant,
        digest=model.info.digest,
    )


def write_csv(result: Study, file: TextIO) -> None:
    """A line for each mean, numbers in full: `float(text)` gives them back to the bit.

    Those over all images are called `ALL_NAME`, and a class of that very name is "./(all)", as its folder is as well.
    """
    shares = [f"mean_share_{size}x{size}" for size in result.kernel_sizes]
    head = ("class", "unit", "module", "scale", "images", "mean_difference", "std", *shares)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow((*head, "comparable_to_paper", "comparable_reason", "variant", "digest"))
    tail = (str(result.comparable_to_paper).lower(), result.reason, result.variant, result.digest)
    for mean in result.means:
        numbers = (mean.scale, mean.images, mean.mean_difference, mean.std, *mean.mean_shares)
        writer.writerow((_told(mean.class_name), mean.unit, mean.module, *map(repr, numbers), *tail))


def outside(folder: Path) -> int:
    """How many files lie beside the sub-folders and are in no class; 0 where there are no sub-folders.

    Raises:
        ImageError: no folder.
    """
    if not _sub_folders(folder):
        return 0
    return sum(path.is_file() and not path.name.startswith(".") for path in folder.iterdir())


def _sub_folders(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder")
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}


def _told(class_name: str | None) -> str:
    if class_name is ALL:
        return ALL_NAME
    return f"./{class_name}" if class_name == ALL_NAME else str(class_name)


def _class(name: str, place: str | Folder, limit: int | None) -> ClassFiles:
    faults: list[Fault] = []
    try:
        files = sorted(path for path in map(Path, files_below(place, faults)) if _may_be_read(path))
    except OSError as error:
        return ClassFiles(name, (), ((str(place), reason(error)),))
    if limit is not None and len(files) > limit:
        files = sorted(random.Random(0).sample(files, limit))  # noqa: S311 - no secret
    return ClassFiles(name, tuple(files), tuple(faults))


def _may_be_read(path: Path) -> bool:
    """Not a pipe or a device, which would be waited for; what cannot be looked at is told when it is read."""
    try:
        return path.is_file() or not path.exists()
    except OSError:
        return True


def _measured(model: Explains, files: Sequence[Path], progress: Progress) -> Iterator[tuple[KernelAttention, ...] | str]:
    """What was measured of each file, or why it was not, in order; never more files under way than keep the engine busy."""
    workers = max(1, int(model.info.streams.value))
    waiting: deque[Future[tuple[KernelAttention, ...] | str]] = deque()
    upcoming = iter(files)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="study")
    try:
        for path in islice(upcoming, _AHEAD * workers):
            waiting.append(pool.submit(_measure, model, path))
        for _ in progress(range(len(files)), "studying"):
            yield waiting.popleft().result()
            waiting.extend(pool.submit(_measure, model, path) for path in islice(upcoming, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _measure(model: Explains, path: Path) -> tuple[KernelAttention, ...] | str:
    """The kernel attention of an image at each scale."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return f"larger than {MAX_FILE_BYTES // 1_000_000} MB"
        items = model.explain_items(path.read_bytes())
    except ImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or type(error).__name__
    size = max(1, model.info.batch_size)
    rows = [row for start in range(0, len(items), size) for row in model.run(items[start : start + size])]
    return tuple(model.attention(row) for row in rows)


def _numbers(scales: Sequence[KernelAttention]) -> NDArray[np.float64]:
    """(scales, units, 1 + M): the difference and each kernel's share, as they were told."""
    units = [[(unit.attention_difference, *unit.mean_attention) for unit in each.units] for each in scales]
    return np.asarray(units, dtype=np.float64)


def _means(name: str | None, stack: NDArray[np.float64], attention: KernelAttention) -> Iterator[Mean]:
    """Of the images of one class: `stack` is (images, scales, units, 1 + M)."""
    means, stds = stack.mean(axis=0), stack[..., 0].std(axis=0)
    for s, scale in enumerate(SCALES):
        for u, unit in enumerate(attention.units):
            difference, *shares = means[s, u].tolist()
            yield Mean(name, unit.unit, unit.module, scale, len(stack), difference, float(stds[s, u]), tuple(shares))
