"""Every metric: its name, labels and buckets. One registry an application; observed from the classifier and the middleware.

Several processes of one service keep their values in files of one folder, and whichever is asked gives the sums of all. A
process that is started again in the place of one that died goes on in its files: counts never go down.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from app.context import Timings
    from model.types import ModelInfo

CONTENT_TYPE = CONTENT_TYPE_LATEST
EXAMPLE = 'sknet_requests_total{route="/classify",status="200"} 41.0'
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Shared:
    """The folder where the processes of one service keep their values, and which of them this one is.

    Whoever starts the process has told the client library of the folder (`app.settings.share_metrics`).
    """

    folder: Path
    slot: int


class Metrics:
    """The metrics of one application.

    With `shared` the client library is switched, for the whole of this process, to values in files: such a process has room
    for one application.
    """

    def __init__(self, shared: Shared | None = None) -> None:
        self._folder = shared.folder if shared else None
        if shared is not None:
            slot = shared.slot
            values.ValueClass = values.MultiProcessValue(process_identifier=lambda: slot)  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.requests = self._counter("sknet_requests", "Requests answered.", "route", "status")
        self.request_seconds = self._histogram("sknet_request_duration_seconds", "Time of a request.", _SECONDS, "route")
        self.phase_seconds = self._histogram("sknet_phase_duration_seconds", "Time of one phase of an image.", _SECONDS, "phase")
        self.images = self._counter("sknet_images", "Images by what became of them.", "outcome")
        self.rejected = self._counter("sknet_rejected", "Requests refused, by reason.", "reason")
        self.batch_size = self._histogram("sknet_batch_size", "Images that ran together.", _IMAGES)
        # Over several processes: those that live are summed where each has its own part, else the highest is told.
        self.queue_size = self._gauge("sknet_queue_size", "Images admitted and not yet answered.", "livesum")
        self.queue_limit = self._gauge("sknet_queue_limit", "Most images admitted at once.", "livesum")
        self.deadline_seconds = self._gauge("sknet_deadline_seconds", "Time a request may take.", "livemax")
        self.connections = self._gauge("sknet_connections", "Open connections.", "livesum")
        self.connections_limit = self._gauge("sknet_connections_limit", "Most open connections at once.", "livesum")
        self.connections_cut = self._counter(
            "sknet_connections_cut", "Connections closed to make room for others, by what they waited for, or refused.", "reason"
        )
        self.ready_workers = self._gauge("sknet_ready_workers", "Processes with a warmed model.", "livesum")
        # Of the dead as well: it would fall at a death and rise at the start that follows, two changes of one restart.
        self.start_time_seconds = self._gauge("sknet_start_time_seconds", "Unix time at which a process last started.", "max")
        self.model_info = self._gauge(
            "sknet_model_info", "The model that serves.", "livemax",
            "name", "variant", "digest", "engine", "device", "dtype",
        )  # fmt: skip
        self.model_load_seconds = self._gauge(
            "sknet_model_load_seconds", "Time to load and warm the model; of several processes the longest.", "livemax"
        )
        self.troubles = self._counter("sknet_troubles", "Lines given up, by what was wrong.", "kind")
        for kind in (
            "stuck engine",
            "stuck decoder",
            "failing engine",
        ):  # there from the start: a first step shows
            self.troubles.labels(kind)
        self.loads = self._counter("sknet_model_loads", "Models loaded or refused, the first one included.", "outcome")
        for outcome in ("loaded", "refused"):
            self.loads.labels(outcome)
        self._model: tuple[str, ...] | None = None  # labels of the series that is 1
        self.start_time_seconds.set(time.time())

    def observe_limits(self, *, queue: int, deadline_s: float) -> None:
        """Tell the limits, so that alerts follow the settings."""
        self.queue_limit.set(queue)
        self.deadline_seconds.set(deadline_s)

    def queue_changed(self, by: int) -> None:
        """Count images as admitted, or (below 0) as answered."""
        self.queue_size.inc(by)

    def observe_model(self, name: str, info: ModelInfo) -> None:
        """Tell which model serves."""
        labels = (name, info.variant, info.digest, info.engine.value, info.device.value, info.dtype.value)
        if labels != self._model:
            self._forget_model()
        self._model = labels
        self.model_info.labels(*labels).set(1)
        self.model_load_seconds.set(info.load_seconds)
        self.ready_workers.set(1)

    def observe_unload(self) -> None:
        """Tell that no model serves."""
        self._forget_model()
        self.ready_workers.set(0)

    def _forget_model(self) -> None:
        labels, self._model = self._model, None
        if labels is None:
            return
        self.model_info.labels(*labels).set(0)
        if self._folder is None:  # shared files have no way to forget a series: see `_Current`
            self.model_info.remove(*labels)

    def observe_drain(self) -> None:
        """Tell that this process serves no more."""
        self.ready_workers.set(0)

    def observe_phases(self, timings: Timings, total_s: float, batch_size: int) -> None:
        """Count the phases of one image that was classified."""
        self.phase_seconds.labels("queue").observe(timings.queue_s)
        self.phase_seconds.labels("prepare").observe(timings.prepare_s)
        self.phase_seconds.labels("inference").observe(timings.inference_s)
        self.phase_seconds.labels("total").observe(total_s)
        self.batch_size.observe(batch_size)

    def render(self) -> bytes:
        """Every metric, of all processes together, in the Prometheus text format."""
        if self._folder is None:
            return generate_latest(_Current(self.registry))
        return generate_latest(_Current(MultiProcessCollector(None, str(self._folder))))  # type: ignore[no-untyped-call]

    async def all(self) -> bytes:
        """As `render`, of the whole service: where others must be asked for theirs, a kind of its own does so."""
        return self.render()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, text: str, over_processes: Any, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry, multiprocess_mode=over_processes)


class _Current(Collector):
    """All of a collector but the models that serve no more: in shared files a series cannot be removed, only set to 0."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterable[Metric]:
        for family in self._collector.collect():
            if family.name == "sknet_model_info":
                family.samples = [sample for sample in family.samples if sample.value]
            yield family


def forget_gauges(shared: Shared) -> None:
    """Take a process that ended out of the sums of what is now; what it counted stays."""
    mark_process_dead(shared.slot, str(shared.folder))  # type: ignore[no-untyped-call]
