"""Every metric: its name, labels and buckets. One registry an application; observed from the classifier and the middleware."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from app.context import Timings
    from model.types import ModelInfo

CONTENT_TYPE = CONTENT_TYPE_LATEST
EXAMPLE = 'sknet_requests_total{route="/classify",status="200"} 41.0'
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("sknet_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "sknet_request_duration_seconds", "Time of a request.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.phase_seconds = Histogram(
            "sknet_phase_duration_seconds", "Time of one phase of an image.", ["phase"], buckets=_SECONDS, registry=registry
        )
        self.images = Counter("sknet_images", "Images by what became of them.", ["outcome"], registry=registry)
        self.rejected = Counter("sknet_rejected", "Requests refused, by reason.", ["reason"], registry=registry)
        self.batch_size = Histogram(
            "sknet_batch_size", "Images that ran together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
        )
        self.queue_size = Gauge("sknet_queue_size", "Images admitted and not yet answered.", registry=registry)
        self.model_info = Gauge(
            "sknet_model_info",
            "The model that serves.",
            ["name", "variant", "digest", "engine", "device", "dtype"],
            registry=registry,
        )
        self.model_load_seconds = Gauge("sknet_model_load_seconds", "Time to load and warm the model.", registry=registry)

    def watch_queue(self, size: Callable[[], int]) -> None:
        """Read the queue's size when asked, instead of counting it a second time."""
        self.queue_size.set_function(size)

    def observe_model(self, name: str, info: ModelInfo) -> None:
        """Tell which model serves."""
        self.model_info.clear()
        self.model_info.labels(name, info.variant, info.digest, info.engine.value, info.device.value, info.dtype.value).set(1)
        self.model_load_seconds.set(info.load_seconds)

    def observe_phases(self, timings: Timings, total_s: float, batch_size: int) -> None:
        """Count the phases of one image that was classified."""
        self.phase_seconds.labels("queue").observe(timings.queue_s)
        self.phase_seconds.labels("prepare").observe(timings.prepare_s)
        self.phase_seconds.labels("inference").observe(timings.inference_s)
        self.phase_seconds.labels("total").observe(total_s)
        self.batch_size.observe(batch_size)

    def render(self) -> bytes:
        """The whole registry in the Prometheus text format."""
        return generate_latest(self.registry)
