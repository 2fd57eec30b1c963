"""Why one image was ranked as it was: its passes through the scheduler, and the picture. Knows no route and no result cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

from app.context import Deadline, Lap, Timings
from app.errors import DeadlinePassed, InvalidParameter, MalformedRequest
from app.lane import Lane
from app.metrics import Metrics
from app.outcomes import counted
from model.types import Explanation, ModelInfo, Prediction

PASSES = 3  # at each of the paper's scales
PictureName = Literal["figure", "overlay"]
AnyT = TypeVar("AnyT")


@dataclass(frozen=True, slots=True)
class Explained:
    """Why one image was ranked as it was, and the picture of it that was asked for (PNG)."""

    explanation: Explanation
    info: ModelInfo
    timings: Timings
    picture: bytes | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be told: the best `top_k` classes from `min_score` up, the map of a class or of the first one, a picture."""

    top_k: int
    min_score: float
    class_index: int | None
    picture: PictureName | None


async def explain(lane: Lane, data: bytes, asked: Asked, deadline: Deadline, *, metrics: Metrics, places: int) -> Explained:
    """Explain an encoded image within a lane, where so many places are asked for.

    Raises:
        AppError: as `Classifier.explain`.
        ModelError: as `Classifier.explain`.
    """
    started = time.monotonic()
    _check_class(lane, asked.class_index)
    if asked.picture == "figure":
        lane.model.check_figures()
    with nullcontext() if asked.picture is None else lane.easel.admit(deadline.at):
        with lane.scheduler.admit(places, deadline.at):
            work = _work_out(lane, data, asked, deadline, metrics, started)
            explanation, timings = await counted(metrics.images, deadline, work)
        explanation = _without_low(explanation, asked.min_score)
        drawing, drawn = time.monotonic(), None
        if asked.picture is not None:
            drawn = await _draw(lane, asked.picture, data, explanation, deadline)
            lap = Lap("draw", drawing, 0.0, time.monotonic() - drawing)
            timings = replace(timings, laps=(*timings.laps, lap))
    return Explained(explanation, lane.model.info, timings, drawn)


async def _work_out(
    lane: Lane, data: bytes, asked: Asked, deadline: Deadline, metrics: Metrics, started: float
) -> tuple[tuple[Explanation, Timings], str]:
    if not data:
        raise MalformedRequest("the image is empty")
    limits = {"deadline": deadline.at, "limit_s": deadline.limit_s}
    prepared = await lane.scheduler.prepare(partial(lane.model.explain_items, data), **limits)
    ran = await _all([lane.scheduler.submit(item, **limits) for item in prepared.row])
    rows = [each.row for each in ran]
    explaining = time.monotonic()
    # With thousands of classes to rank three times it would hold the loop.
    explanation = await asyncio.to_thread(
        lane.model.explanation, prepared.row, rows, k=asked.top_k, class_index=asked.class_index
    )
    slowest = max(each.run_s for each in ran), max(each.queue_s for each in ran)
    laps = (
        Lap.of("prepare", prepared),
        *(Lap.of("inference", each) for each in ran),
        Lap("explain", explaining, 0.0, time.monotonic() - explaining),
    )
    timings = Timings(prepared.queue_s + slowest[1], prepared.run_s, slowest[0], laps, model=lane.model.info)
    metrics.observe_phases(timings, time.monotonic() - started, ran[0].batch_size)
    return (explanation, timings), "classified"


async def _draw(lane: Lane, picture: PictureName, data: bytes, explanation: Explanation, deadline: Deadline) -> bytes:
    draw = lane.model.figure if picture == "figure" else lane.model.overlay
    try:
        async with asyncio.timeout_at(deadline.at):
            return await lane.easel.draw(partial(draw, data, explanation), deadline=deadline.at, limit_s=deadline.limit_s)
    except TimeoutError:
        raise DeadlinePassed(deadline.limit_s) from None


def _check_class(lane: Lane, class_index: int | None) -> None:
    last = lane.model.info.num_classes - 1
    if class_index is not None and not 0 <= class_index <= last:
        raise InvalidParameter("class_index", class_index, f"a whole number from 0 to {last}", last)


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
