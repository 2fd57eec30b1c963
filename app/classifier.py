"""The spine: admit, prepare, schedule, rank. Owns the current lane, a model with its scheduler.

What a model must offer is declared here, so that this package never sees a tensor and its tests need no framework.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from app.context import Deadline, Timings
from app.errors import AppError, BodyTooLarge, DeadlinePassed, InvalidParameter, MalformedRequest, NotReady
from app.metrics import Metrics
from app.scheduler import Scheduler
from app.settings import Settings
from model.errors import ImageError, ModelError
from model.types import ImageInfo, ModelInfo, Prediction


class Item(Protocol):
    """A prepared image; opaque but for what it was."""

    @property
    def image(self) -> ImageInfo: ...


class Model(Protocol):
    """What a model offers; `model.manager.LoadedModel` does."""

    info: ModelInfo
    preprocess_sentence: str

    def prepare(self, data: bytes) -> Any: ...
    def run(self, items: Sequence[Any]) -> Sequence[Any]: ...
    def top_k(self, row: Any, k: int) -> tuple[Prediction, ...]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Classified:
    """The ranking of one image, with what it was and how long it took."""

    predictions: tuple[Prediction, ...]
    image: ImageInfo
    info: ModelInfo
    timings: Timings


@dataclass(frozen=True, slots=True)
class Lane:
    """A model and its queue: read once a request, so that weights and labels cannot mix."""

    model: Model
    scheduler: Scheduler[Any, Any]
    engine_pool: ThreadPoolExecutor

    async def close(self) -> None:
        await self.scheduler.close()
        self.engine_pool.shutdown()
        self.model.close()


class Classifier:
    """Classifies encoded images with the model it was given, within the limits of the settings."""

    def __init__(self, settings: Settings, metrics: Metrics, *, decode_threads: int) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lane: Lane | None = None
        self._reasons: tuple[str, ...] = ("the model is being loaded",)
        self.state = "loading"
        self._decode_pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")

    # what it is doing

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ready; empty when it is."""
        return self._reasons

    @property
    def model(self) -> Model:
        """Raises:
        NotReady: no model serves.
        """
        return self._current().model

    async def start(self, load: Callable[[], Model]) -> None:
        """Load the model off the loop and serve it.

        Raises:
            ModelError: it cannot be loaded; the state is "failed" and says why.
        """
        try:
            model = await _beside(load)
        except Exception as error:
            self.state = "failed"
            self._reasons = (str(error) if isinstance(error, ModelError) else "the model could not be loaded",)
            raise
        if self.state == "draining":  # asked to stop while it loaded
            model.close()
            return
        pool = ThreadPoolExecutor(1, thread_name_prefix="engine")
        scheduler: Scheduler[Any, Any] = Scheduler(
            model.run, pool, max_items=self._settings.max_queue, batch_size=self._settings.batch_size
        )
        self._metrics.watch_queue(lambda: scheduler.admitted)
        self._metrics.observe_model(self._settings.model_name, model.info)
        self._lane = Lane(model, scheduler, pool)
        self._reasons = ()
        self.state = "ready"

    def drain(self) -> None:
        """Say from now on that the service is shutting down; what was and still is accepted is finished."""
        self.state = "draining"
        self._reasons = ("the service is shutting down",)

    async def close(self) -> None:
        """Refuse what is new, finish what runs, free the model."""
        self.drain()
        lane, self._lane = self._lane, None
        if lane is not None:
            await lane.close()
        await asyncio.to_thread(self._decode_pool.shutdown)  # decoding may take a second, and the loop still answers

    # what it is for

    async def classify(self, data: bytes, *, top_k: int | None, min_score: float, deadline: Deadline) -> Classified:
        """The best classes of one encoded image.

        Raises:
            AppError: no room, not ready, too late, or `top_k` out of range.
            ModelError: no usable image, or the engine failed.
        """
        lane = self._current()
        k = self._check_top_k(lane, top_k)
        with lane.scheduler.admit(1):
            return await self._classify(lane, data, k, min_score, deadline)

    async def classify_many(
        self, images: Sequence[bytes | AppError], *, top_k: int | None, min_score: float, deadline: Deadline
    ) -> tuple[ModelInfo, list[Classified | Exception]]:
        """A result or an error for each image, in order; an image may already be an error (it could not be read).

        Raises:
            AppError: no room for all of them, not ready, or `top_k` out of range.
        """
        lane = self._current()
        k = self._check_top_k(lane, top_k)

        async def one(data: bytes | AppError) -> Classified | Exception:
            if isinstance(data, bytes) and len(data) > self._settings.max_body_bytes:
                data = BodyTooLarge(self._settings.max_body_bytes, len(data))
            if isinstance(data, AppError):
                self._metrics.images.labels("rejected").inc()
                return data
            try:
                return await self._classify(lane, data, k, min_score, deadline)
            except Exception as error:  # noqa: BLE001 - one image never spoils the others, whatever it did; the caller logs it
                return error

        with lane.scheduler.admit(len(images)):
            return lane.model.info, list(await asyncio.gather(*map(one, images)))

    async def _classify(self, lane: Lane, data: bytes, k: int, min_score: float, deadline: Deadline) -> Classified:
        started = time.monotonic()
        outcome = "failed"
        try:
            if not data:
                raise MalformedRequest("the image is empty")
            async with asyncio.timeout_at(deadline.at):
                loop = asyncio.get_running_loop()
                prepare_started = time.monotonic()
                # The pool's queue must not keep the bytes of clients that left or were told that it is too late.
                box = [data]
                del data
                try:
                    item = await loop.run_in_executor(self._decode_pool, lambda: lane.model.prepare(box.pop()))
                except asyncio.CancelledError:
                    box.clear()
                    raise
                prepare_s = time.monotonic() - prepare_started
                ran = await lane.scheduler.submit(item, deadline=deadline.at, limit_s=deadline.limit_s)
            predictions = lane.model.top_k(ran.row, k)
            outcome = "classified"
        except TimeoutError:
            outcome = "late"
            raise DeadlinePassed(deadline.limit_s) from None
        except DeadlinePassed:
            outcome = "late"
            raise
        except asyncio.CancelledError:
            outcome = "abandoned"
            raise
        except (ImageError, MalformedRequest):
            outcome = "rejected"
            raise
        finally:
            self._metrics.images.labels(outcome).inc()
        timings = Timings(ran.queue_s, prepare_s, ran.inference_s)
        self._metrics.observe_phases(timings, time.monotonic() - started, ran.batch_size)
        kept = tuple(p for p in predictions if p.score >= min_score)
        return Classified(kept, item.image, lane.model.info, timings)

    def retry_after(self) -> int:
        """Seconds until what is admitted now will have been answered, as measured; 1 while nothing is."""
        return 1 if self._lane is None else self._lane.scheduler.retry_after()

    def _current(self) -> Lane:
        if self._lane is None:
            raise NotReady(self._reasons)
        return self._lane

    def _check_top_k(self, lane: Lane, top_k: int | None) -> int:
        classes = lane.model.info.num_classes
        if top_k is None:
            return min(self._settings.top_k, classes)
        if not 1 <= top_k <= classes:
            raise InvalidParameter("top_k", top_k, f"a whole number from 1 to {classes}", classes)
        return top_k


async def _beside(load: Callable[[], Model]) -> Model:
    """Run `load` in a daemon thread: a download that hangs must not hold up the end of the process.

    Given up while it loads, the model that comes in the end is closed.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Model] = loop.create_future()

    def settle(model: Model | None, error: BaseException | None) -> None:
        if done.cancelled():
            if model is not None:
                model.close()
        elif model is not None:
            done.set_result(model)
        elif error is not None:
            done.set_exception(error)

    def work() -> None:
        model, failure = None, None
        try:
            model = load()
        except BaseException as error:  # noqa: BLE001 - whatever it is goes to whoever waits
            failure = error
        with suppress(RuntimeError):  # the loop may be gone by now
            loop.call_soon_threadsafe(settle, model, failure)

    threading.Thread(target=work, name="load", daemon=True).start()
    return await done
