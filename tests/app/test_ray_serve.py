"""What is deployed: the options, what they become for Ray, and what goes along to the replicas."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from app.ray_serve import ANSWERS, Options, app
from app.settings import SpanVariables


class Deployment:
    """Notes what Ray's decorator is given."""

    def __init__(self, cls: object, **options: Any) -> None:
        self.options = options

    def bind(self, given: dict[str, Any], *, keyed: bool, ignored: tuple[str, ...], spans: SpanVariables) -> Deployment:
        self.given, self.keyed, self.ignored, self.spans = given, keyed, ignored, spans
        return self


class Serve:
    """Stands for `ray.serve`, whose import takes seconds; the real one is in tests/e2e/test_ray.py."""

    deployment = Deployment

    @staticmethod
    def ingress() -> Any:
        return lambda cls: cls


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`app`, with what it made of the arguments."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "ray", type(sys)("ray"))
    monkeypatch.setattr(sys.modules["ray"], "serve", Serve, raising=False)
    return app


def test_the_options_become_rays(built: Any) -> None:
    made = built(
        {"cpus": "2", "gpus": "0.25", "max_replicas": "8", "target_ongoing_requests": "6"}
    )  # as a command line gives them
    assert made.options["ray_actor_options"] == {"num_cpus": 2, "num_gpus": 0.25}
    assert made.options["autoscaling_config"] == {
        "min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 6, "upscale_delay_s": 10, "downscale_delay_s": 300,
    }  # fmt: skip


def test_our_queue_says_no_before_rays_does(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKNET_MAX_QUEUE", "100")
    monkeypatch.setenv("SKNET_DRAIN_S", "40")
    made = built(Options())
    assert made.options["max_ongoing_requests"] > 100
    assert made.options["max_queued_requests"] == 100
    assert made.options["graceful_shutdown_timeout_s"] > 40
    assert made.options["health_check_period_s"] == 2


def test_settings_go_along_but_no_secret(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (built({}).given, built({}).keyed) == ({}, False)
    monkeypatch.setenv("SKNET_TOP_K", "3")
    monkeypatch.setenv("SKNET_API_KEYS", "k" * 40)
    made = built({})
    assert (made.given, made.keyed, made.ignored) == ({"top_k": 3}, True, ())


def test_where_spans_go_goes_along_but_no_header_of_theirs(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20secret")
    assert built({}).spans == SpanVariables()  # tracing is off
    monkeypatch.setenv("SKNET_TRACING", "true")
    spans = built({}).spans
    assert spans.sent["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert spans.kept == ("OTEL_EXPORTER_OTLP_TRACES_HEADERS",)
    assert "secret" not in repr(spans)


def test_a_misspelt_setting_goes_along_to_be_told(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKNET_TOPK", "3")
    assert built({}).ignored == ("SKNET_TOPK",)


def test_ray_is_told_to_be_quiet_unless_the_environment_says_otherwise(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built({})
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == ANSWERS
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    built({})
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"


@pytest.mark.parametrize(
    "wrong", [{"cpu": 1}, {"cpus": 0}, {"gpus": 2}, {"min_replicas": 5}, {"min_replicas": 0}, {"target_ongoing_requests": "many"}]
)
def test_options_that_there_are_not_are_refused(built: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        built(wrong)


def test_without_ray_it_says_what_to_install(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'sknet-serve\[ray\]'"):
        app({})
