"""Many images through a model of this process: read and prepared ahead in threads, run as the engine likes, told in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from app.answers import Answer
from app.classifier import Model
from app.image_files import Source, Unreadable, at_hand
from model.device import cpu_limit
from model.errors import ModelError
from model.types import Label

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class _Ready:
    name: str
    item: Any  # of the model


class Local:
    """A loaded model as a `Backend`; leaving it closes the model."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        self._model.close()

    @property
    def labels(self) -> tuple[Label, ...]:
        """The model's classes by index."""
        return self._model.info.labels

    @property
    def about(self) -> Mapping[str, str]:
        """As `Backend.about`."""
        info = self._model.info
        runs = f"in this process: {info.engine.value}, {info.dtype.value}, {info.device.value}"
        return {"checkpoint": info.checkpoint, "variant": info.variant, "digest": info.digest, "runs": runs}

    def classify(self, sources: Iterable[Source], *, k: int, attention: bool = False) -> Generator[Answer]:
        """As `Backend.classify`; all processors are used."""
        info = self._model.info
        processors, streams, size = cpu_limit()[0], int(info.streams.value), max(1, info.batch_size)
        answer = partial(self._answers, k=min(k, info.num_classes), attention=attention)
        reading = ThreadPoolExecutor(processors, thread_name_prefix="read")
        running = ThreadPoolExecutor(streams, thread_name_prefix="run")
        try:
            # Ahead by what the engine takes while it works: no more, since every image waits in memory.
            prepared = in_order(reading, self._prepare, map(at_hand, sources), size * streams + processors)
            for answers in in_order(running, answer, _batches(prepared, size), 2 * streams):
                yield from answers
        finally:
            for pool in (running, reading):
                pool.shutdown(cancel_futures=True)

    def _prepare(self, source: Source) -> _Ready | Answer:
        try:
            return _Ready(source.name, self._model.prepare(source.read()))
        except (Unreadable, ModelError) as error:
            return Answer(source.name, error=str(error))

    def _answers(self, batch: Sequence[_Ready | Answer], *, k: int, attention: bool) -> list[Answer]:
        ready = [each for each in batch if isinstance(each, _Ready)]
        done = dict(zip(map(id, ready), self._ranked(ready, k, attention), strict=True))
        return [done[id(each)] if isinstance(each, _Ready) else each for each in batch]

    def _ranked(self, ready: Sequence[_Ready], k: int, attention: bool) -> list[Answer]:
        if not ready:
            return []
        try:
            rows = self._model.run([each.item for each in ready])
            return [self._answer(each, row, k, attention) for each, row in zip(ready, rows, strict=True)]
        except ModelError as error:
            if len(ready) == 1:
                return [Answer(ready[0].name, error=str(error))]
        # One image must not spoil the others, and a smaller batch may find the memory that this one did not.
        return [self._ranked([each], k, attention)[0] for each in ready]

    def _answer(self, ready: _Ready, row: Any, k: int, attention: bool) -> Answer:
        chosen = self._model.attention(row) if attention else None
        return Answer(ready.name, self._model.top_k(row, k), ready.item.image, chosen)


def in_order(pool: ThreadPoolExecutor, function: Callable[[T], U], items: Iterable[T], depth: int) -> Iterator[U]:
    """What a function makes of each item, in order, by the threads of a pool; at most `depth` are begun and not yet taken."""
    waiting: deque[Future[U]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
