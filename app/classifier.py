"""The spine: admit, prepare, schedule, rank. Each request reads the lane that serves once, and stays in it.

What a model must offer is declared here, so that this package never sees a tensor and its tests need no framework.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from app.call import Ran
from app.context import Deadline, Lap, Timings
from app.errors import AppError, BodyTooLarge, DeadlinePassed, InvalidParameter, MalformedRequest, NotReady, Overloaded
from app.fingerprint import Fingerprints
from app.lane import Lane
from app.lanes import Lanes
from app.metrics import Metrics
from app.results import Results
from app.scheduler import Places
from app.settings import Settings
from model.errors import ImageError
from model.types import Explanation, ImageInfo, KernelAttention, ModelInfo, Prediction, ScoreFunction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

ENCODED = (bytes, bytearray)  # what is not of these is an array
PASSES = 3  # of an explanation: at each of the paper's scales
PictureName = Literal["figure", "overlay"]
AnyT = TypeVar("AnyT")


class Item(Protocol):
    """A prepared image; opaque but for what it was."""

    @property
    def image(self) -> ImageInfo: ...


class Model(Protocol):
    """What a model offers; `model.manager.LoadedModel` does."""

    info: ModelInfo
    preprocess_sentence: str

    @property
    def apart(self) -> int:
        """How many threads in `prepare` wait for a process that decodes for them, and that has limits of its own."""

    def prepare(self, data: bytes) -> Any: ...

    def prepare_array(self, array: Array) -> Any:
        """An input that others prepared: uint8 pixels (H, W, 3) in RGB, or float32 (3, H, W), normalised."""

    def run(self, items: Sequence[Any]) -> Sequence[Any]: ...
    def top_k(self, row: Any, k: int, function: ScoreFunction = "softmax") -> tuple[Prediction, ...]: ...

    def scores(self, row: Any, function: ScoreFunction) -> NDArray[np.float32]:
        """The scores of every class, in the order of their indices: (num_classes,)."""

    def attention(self, row: Any) -> KernelAttention:
        """What the units chose for the image of a row."""

    def explain_items(self, data: bytes) -> tuple[Any, ...]:
        """The items of the passes that an explanation needs, the ordinary one first."""

    def explanation(self, items: Sequence[Any], rows: Sequence[Any], *, k: int, class_index: int | None) -> Explanation:
        """What the rows of `explain_items` say, with the map of one class, by default the first."""

    def check_figures(self) -> None:
        """Raises:
        FiguresUnavailable: there can be no figure here, whatever the image.
        """

    def figure(self, data: bytes, explanation: Explanation, form: str = "png") -> bytes:
        """The explanation as one picture for people: a file of one of `model.plots.FORMS`."""

    def overlay(self, data: bytes, explanation: Explanation) -> bytes:
        """The image in its own size and orientation with the map over it: PNG."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Classified:
    """The ranking of one image, with what it was and how long it took."""

    predictions: tuple[Prediction, ...]
    image: ImageInfo
    info: ModelInfo
    timings: Timings
    attention: KernelAttention | None = None  # where it was asked for
    scores: Mapping[ScoreFunction, NDArray[np.float32]] = field(default_factory=dict)  # those that were asked for


@dataclass(frozen=True, slots=True)
class Explained:
    """Why one image was ranked as it was, and the picture of it that was asked for (PNG)."""

    explanation: Explanation
    info: ModelInfo
    timings: Timings
    picture: bytes | None


# What an answer depends on: SHA-256 of the encoded bytes, and the lane. The same weights may have come back with another card.
_Key = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of an image: its row, so that any number of classes can be told."""

    row: Any
    image: ImageInfo
    timings: Timings


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be told of an image.

    Args:
        top_k: how many classes; what the settings say where not given.
        min_score: the least score of a class that is told.
        explain: what the units chose as well, out of the same pass.
        function: what makes scores of logits.
        scores: by which functions the scores of all classes are told too.
    """

    top_k: int | None = None
    min_score: float = -math.inf
    explain: bool = False
    function: ScoreFunction = "softmax"
    scores: tuple[ScoreFunction, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ask:
    """One image on its way: encoded, or an array that others prepared."""

    data: bytes | Array
    key: _Key | None
    deadline: Deadline
    places: Places
    started: float
    k: int
    wanted: Wanted
    image: int = 0  # which one of a batch


class Classifier:
    """Classifies encoded images with the model it was given, within the limits of the settings."""

    def __init__(self, settings: Settings, metrics: Metrics, *, decode_threads: int) -> None:
        self._settings = settings
        self._metrics = metrics
        self.lanes = Lanes(settings, metrics, decode_threads)
        self._results: Results[_Key, _Known] | None = None
        if settings.result_cache:
            self._results = Results(settings.result_cache, shared=ImageError)
        self._fingerprints = Fingerprints()

    # what it is doing

    @property
    def state(self) -> str:
        """As `Lanes.state`."""
        return self.lanes.state

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ready; empty when it is."""
        return self.lanes.reasons

    @property
    def model(self) -> Model:
        """Raises:
        NotReady: no model serves.
        """
        return self._current().model

    async def start(self, load: Callable[[], Model]) -> None:
        """Load the first model; as `Lanes.start`."""
        await self.lanes.start(load)

    async def load(self, load: Callable[[], Model]) -> ModelInfo:
        """Serve another model without refusing anybody; as `Lanes.load`."""
        return (await self.lanes.load(load)).info

    async def unload(self) -> None:
        """Serve nothing until something is loaded; as `Lanes.unload`."""
        await self.lanes.unload()

    def drain(self) -> None:
        """Say from now on that the service is shutting down; what was and still is accepted is finished."""
        self.lanes.drain()

    async def close(self) -> None:
        """Refuse what is new, finish what runs, free the model."""
        await self.lanes.close()
        await self._fingerprints.close()

    # what it is for

    async def classify(
        self, data: bytes, *, top_k: int | None, min_score: float, deadline: Deadline, explain: bool = False
    ) -> Classified:
        """The best classes of one encoded image; with `explain` what its units chose as well, out of the same pass.

        Raises: as `tell`.
        """
        return await self.tell(data, Wanted(top_k, min_score, explain), deadline)

    async def tell(self, data: bytes | Array, wanted: Wanted, deadline: Deadline) -> Classified:
        """What is wanted of one image, encoded or prepared by others (as `Model.prepare_array` takes it).

        Raises:
            AppError: no room, not ready, too late, or `top_k` out of range.
            ModelError: no usable image, or the engine failed.
        """
        started = time.monotonic()
        with self._current() as lane:
            k = self._check_top_k(lane, wanted.top_k)
            key = await self._key(lane, data, deadline)
            with lane.scheduler.admit(0 if key else 1, deadline.at) as places:  # with a key, if it is to be worked out at all
                return await self._classify(lane, _Ask(data, key, deadline, places, started, k, wanted))

    async def classify_many(
        self,
        images: Sequence[bytes | AppError],
        *,
        top_k: int | None,
        min_score: float,
        deadline: Deadline,
        explain: bool = False,
    ) -> tuple[ModelInfo, list[Classified | Exception]]:
        """A result or an error for each image, in order; an image may already be an error (it could not be read).

        Raises: as `tell_many`.
        """
        return await self.tell_many(images, Wanted(top_k, min_score, explain), deadline)

    async def tell_many(
        self, images: Sequence[bytes | Array | AppError], wanted: Wanted, deadline: Deadline
    ) -> tuple[ModelInfo, list[Classified | Exception]]:
        """What is wanted of each image, or its error, in order.

        Raises:
            AppError: no room for all of them, not ready, too late to begin, or `top_k` out of range.
        """
        with self._current() as lane:
            k = self._check_top_k(lane, wanted.top_k)
            return lane.model.info, await self._classify_each(lane, images, k, wanted, deadline)

    async def _classify_each(
        self, lane: Lane, images: Sequence[bytes | Array | AppError], k: int, wanted: Wanted, deadline: Deadline
    ) -> list[Classified | Exception]:
        started = time.monotonic()
        checked = [self._check_size(image) for image in images]
        keys = [None if isinstance(image, AppError) else await self._key(lane, image, deadline) for image in checked]

        async def one(index: int, image: bytes | Array | AppError, key: _Key | None) -> Classified | Exception:
            if isinstance(image, AppError):
                self._metrics.images.labels("rejected").inc()
                return image
            try:
                return await self._classify(lane, _Ask(image, key, deadline, places, started, k, wanted, index))
            except Exception as error:  # noqa: BLE001 - one image never spoils the others, whatever it did; the caller logs it
                return error

        count = sum(not isinstance(image, AppError) for image in checked)
        if self._results is not None:
            known = [key for key in keys if key is not None]
            arrays = sum(not isinstance(image, (*ENCODED, AppError)) for image in checked)  # which no result is remembered of
            count = arrays + self._results.missing(known)
        with lane.scheduler.admit(count, deadline.at) as places:
            return list(await asyncio.gather(*map(one, itertools.count(), checked, keys)))

    async def explain(
        self,
        data: bytes,
        *,
        top_k: int | None,
        min_score: float,
        class_index: int | None,
        picture: PictureName | None,
        deadline: Deadline,
    ) -> Explained:
        """Why one encoded image is ranked as it is. Admitted as the number of passes that takes.

        Raises:
            AppError: as `classify`, and `class_index` out of range.
            ModelError: as `classify`, and the picture cannot be drawn here.
        """
        started = time.monotonic()
        with self._current() as lane:
            k = self._check_top_k(lane, top_k)
            self._check_class(lane, class_index)
            if picture == "figure":
                lane.model.check_figures()
            with nullcontext() if picture is None else lane.easel.admit(deadline.at):
                # With a queue shorter than that it would never be admitted, however often the client came back.
                with lane.scheduler.admit(min(PASSES, self._settings.max_queue), deadline.at):
                    work = self._explain(lane, data, k, class_index, deadline, started)
                    explanation, timings = await self._counted(deadline, work)
                explanation = _without_low(explanation, min_score)
                drawing, drawn = time.monotonic(), None
                if picture is not None:
                    drawn = await self._draw(lane, picture, data, explanation, deadline)
                    lap = Lap("draw", drawing, 0.0, time.monotonic() - drawing)
                    timings = replace(timings, laps=(*timings.laps, lap))
        return Explained(explanation, lane.model.info, timings, drawn)

    async def _explain(
        self, lane: Lane, data: bytes, k: int, class_index: int | None, deadline: Deadline, started: float
    ) -> tuple[tuple[Explanation, Timings], str]:
        if not data:
            raise MalformedRequest("the image is empty")
        limits = {"deadline": deadline.at, "limit_s": deadline.limit_s}
        prepared = await lane.scheduler.prepare(partial(lane.model.explain_items, data), **limits)
        ran = await _all([lane.scheduler.submit(item, **limits) for item in prepared.row])
        rows = [each.row for each in ran]
        explaining = time.monotonic()
        # With thousands of classes to rank three times it would hold the loop.
        explanation = await asyncio.to_thread(lane.model.explanation, prepared.row, rows, k=k, class_index=class_index)
        slowest = max(each.run_s for each in ran), max(each.queue_s for each in ran)
        laps = (
            _lap("prepare", prepared),
            *(_lap("inference", each) for each in ran),
            Lap("explain", explaining, 0.0, time.monotonic() - explaining),
        )
        timings = Timings(prepared.queue_s + slowest[1], prepared.run_s, slowest[0], laps, model=lane.model.info)
        self._metrics.observe_phases(timings, time.monotonic() - started, ran[0].batch_size)
        return (explanation, timings), "classified"

    async def _draw(self, lane: Lane, picture: PictureName, data: bytes, explanation: Explanation, deadline: Deadline) -> bytes:
        draw = lane.model.figure if picture == "figure" else lane.model.overlay
        try:
            async with asyncio.timeout_at(deadline.at):
                return await lane.easel.draw(partial(draw, data, explanation), deadline=deadline.at, limit_s=deadline.limit_s)
        except TimeoutError:
            raise DeadlinePassed(deadline.limit_s) from None

    async def _classify(self, lane: Lane, ask: _Ask) -> Classified:
        known, own, predictions = await self._counted(ask.deadline, self._rank(lane, ask))
        wanted = ask.wanted
        kept = tuple(p for p in predictions if p.score >= wanted.min_score)
        timings = known.timings if own else Timings(0.0, 0.0, 0.0)
        attention = lane.model.attention(known.row) if wanted.explain else None
        scores = {function: lane.model.scores(known.row, function) for function in wanted.scores}
        return Classified(kept, known.image, lane.model.info, timings, attention, scores)

    async def _rank(self, lane: Lane, ask: _Ask) -> tuple[tuple[_Known, bool, tuple[Prediction, ...]], str]:
        if isinstance(ask.data, ENCODED) and not ask.data:
            raise MalformedRequest("the image is empty")
        known, own = await self._ask(lane, ask)
        return (known, own, lane.model.top_k(known.row, ask.k, ask.wanted.function)), "classified" if own else "cached"

    async def _counted(self, deadline: Deadline, work: Coroutine[Any, Any, tuple[AnyT, str]]) -> AnyT:
        """Do the work of one image within its time, and count once what became of it."""
        outcome: str | None = "failed"
        timer = asyncio.timeout_at(deadline.at)
        try:
            async with timer:
                result, outcome = await work
            return result
        except DeadlinePassed:
            outcome = "late"
            raise
        except TimeoutError:
            if not timer.expired():  # somebody else's
                raise
            outcome = "late"
            raise DeadlinePassed(deadline.limit_s) from None
        except asyncio.CancelledError:
            outcome = "abandoned"
            raise
        except (ImageError, MalformedRequest):
            outcome = "rejected"
            raise
        except Overloaded:
            outcome = None  # it was never taken on
            raise
        finally:
            del timer, work  # they know the task, and an error this frame: together they would keep the image's bytes
            if outcome is not None:
                self._metrics.images.labels(outcome).inc()

    async def _ask(self, lane: Lane, ask: _Ask) -> tuple[_Known, bool]:
        """The row of an image, and whether it was worked out for this very request."""
        if ask.key is None or self._results is None:
            return await self._work_out(lane, ask, ask.deadline), True
        # Others may wait for the same row, and longer. Each of them gives up in its own time, and the last one ends the work.
        patient = Deadline(math.inf, ask.deadline.limit_s)
        return await self._results.ask(ask.key, lambda: self._work_out(lane, ask, patient))

    async def _work_out(self, lane: Lane, ask: _Ask, deadline: Deadline) -> _Known:
        with ask.places.take():
            limits = {"deadline": deadline.at, "limit_s": deadline.limit_s}
            data, model = ask.data, lane.model
            prepare = partial(model.prepare, data) if isinstance(data, ENCODED) else partial(model.prepare_array, data)
            prepared = await lane.scheduler.prepare(prepare, **limits)
            image = prepared.row.image
            ran = await lane.scheduler.submit(prepared.row, **limits)
        row = ran.row
        if ask.key is not None:
            lane.model.top_k(row, 1)  # what cannot be ranked is an error, and none is remembered
            row = copy.copy(row)  # a row that is kept must not keep the whole batch that it is a part of
        laps = _lap("prepare", prepared), _lap("inference", ran)
        timings = Timings(prepared.queue_s + ran.queue_s, prepared.run_s, ran.run_s, laps, ask.image, lane.model.info)
        self._metrics.observe_phases(timings, time.monotonic() - ask.started, ran.batch_size)
        return _Known(row, image, timings)

    async def _key(self, lane: Lane, data: bytes | Array, deadline: Deadline) -> _Key | None:
        """Under which name the answer to these bytes is remembered; None where none is, or there is nothing to ask.

        Raises:
            AppError: as `Stage.submit`.
        """
        if self._results is None or not isinstance(data, ENCODED) or not data:
            return None
        digest = await self._fingerprints.of(data, deadline=deadline.at, limit_s=deadline.limit_s)
        return digest, lane.number

    def refusal(self, count: int, deadline: Deadline) -> AppError | None:
        """What would be answered to so many images at present without looking at them, so that nobody reads their bodies first.

        With a result cache only that nothing serves: whether there must be room shows when the bytes are known.
        """
        lane = self.lanes.lane
        if lane is None:
            return NotReady(self.reasons)
        return lane.scheduler.refusal(count if self._results is None else 0, deadline.at)

    def retry_after(self) -> int:
        """Seconds until what is admitted now will have been answered, as measured; 1 while nothing is."""
        lane = self.lanes.lane
        return 1 if lane is None else lane.scheduler.retry_after()

    def _current(self) -> Lane:
        return self.lanes.current()

    def _check_size(self, image: bytes | Array | AppError) -> bytes | Array | AppError:
        if isinstance(image, ENCODED) and len(image) > self._settings.max_body_bytes:
            return BodyTooLarge(self._settings.max_body_bytes, len(image))
        return image

    def _check_class(self, lane: Lane, class_index: int | None) -> None:
        last = lane.model.info.num_classes - 1
        if class_index is not None and not 0 <= class_index <= last:
            raise InvalidParameter("class_index", class_index, f"a whole number from 0 to {last}", last)

    def _check_top_k(self, lane: Lane, top_k: int | None) -> int:
        classes = lane.model.info.num_classes
        if top_k is None:
            return min(self._settings.top_k, classes)
        if not 1 <= top_k <= classes:
            raise InvalidParameter("top_k", top_k, f"a whole number from 1 to {classes}", classes)
        return top_k


def _lap(phase: str, ran: Ran[Any]) -> Lap:
    return Lap(phase, ran.since, ran.queue_s, ran.run_s, ran.batch_size)


def _without_low(explanation: Explanation, min_score: float) -> Explanation:
    """Without the classes below a score."""

    def kept(predictions: tuple[Prediction, ...]) -> tuple[Prediction, ...]:
        return tuple(p for p in predictions if p.score >= min_score)

    scales = tuple(replace(each, predictions=kept(each.predictions)) for each in explanation.scales)
    return replace(explanation, predictions=kept(explanation.predictions), scales=scales)


async def _all(works: Sequence[Coroutine[Any, Any, AnyT]]) -> list[AnyT]:
    """What they all give; where one fails, the others are not worked on any more."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
