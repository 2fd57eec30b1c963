"""Metrics: the names of the contract, one registry an application, and series that strangers cannot multiply."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from app.context import Timings
from app.metrics import Metrics, Shared, forget_gauges
from tests.app.asgi import serving
from tests.fakes import fake_info


def test_names_types_and_labels_are_those_of_the_contract() -> None:
    metrics = Metrics()
    metrics.requests.labels("/classify", 200).inc()
    metrics.request_seconds.labels("/classify").observe(0.1)
    metrics.observe_phases(Timings(0.001, 0.002, 0.003), 0.01, 4)
    metrics.images.labels("classified").inc()
    metrics.rejected.labels("overloaded").inc()
    metrics.connections_cut.labels("idle").inc()
    metrics.observe_model("default", fake_info())
    metrics.loads.labels("loaded").inc()
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    families = {name: family for name, family in families.items() if "created" not in name}
    assert {name: (f.type, {label for s in f.samples for label in s.labels} - {"le"}) for name, f in families.items()} == {
        "sknet_requests": ("counter", {"route", "status"}),
        "sknet_request_duration_seconds": ("histogram", {"route"}),
        "sknet_phase_duration_seconds": ("histogram", {"phase"}),
        "sknet_queue_size": ("gauge", set()),
        "sknet_batch_size": ("histogram", set()),
        "sknet_images": ("counter", {"outcome"}),
        "sknet_rejected": ("counter", {"reason"}),
        "sknet_model_info": ("gauge", {"name", "variant", "digest", "engine", "device", "dtype"}),
        "sknet_model_load_seconds": ("gauge", set()),
        "sknet_model_loads": ("counter", {"outcome"}),
        "sknet_troubles": ("counter", {"kind"}),
        "sknet_connections": ("gauge", set()),
        "sknet_connections_limit": ("gauge", set()),
        "sknet_connections_cut": ("counter", {"reason"}),
        "sknet_queue_limit": ("gauge", set()),
        "sknet_deadline_seconds": ("gauge", set()),
        "sknet_ready_workers": ("gauge", set()),
        "sknet_start_time_seconds": ("gauge", set()),
    }  # fmt: skip
    samples = {s.name for f in families.values() for s in f.samples}
    assert {"sknet_requests_total", "sknet_images_total", "sknet_rejected_total"} <= samples
    assert {s.labels["phase"] for s in families["sknet_phase_duration_seconds"].samples} == {
        "queue",
        "prepare",
        "inference",
        "total",
    }
    assert all(family.documentation.endswith(".") for family in families.values())


def test_a_new_model_replaces_the_old_one() -> None:
    metrics = Metrics()
    metrics.observe_model("one", fake_info())
    metrics.observe_model("two", fake_info())
    (family,) = [f for f in text_string_to_metric_families(metrics.render().decode()) if f.name == "sknet_model_info"]
    assert [(s.labels["name"], s.value) for s in family.samples] == [("two", 1)]
    assert metrics.registry.get_sample_value("sknet_model_load_seconds") == 0.25


async def test_two_applications_in_one_process_share_nothing() -> None:
    async with serving() as one, serving(model_name="other") as two:
        await one.client.post("/classify", files={"file": b"x"})
        assert one.metric("sknet_images_total", outcome="classified") == 1
        assert two.metric("sknet_images_total", outcome="classified") == 0
        assert two.metric("sknet_model_info", name="other") == 1
        assert one.metric("sknet_model_info", name="other") == 0


async def test_what_a_request_leaves_behind() -> None:
    async with serving() as service:
        await service.client.post("/classify", files={"file": b"x"})
        await service.client.post("/classify", files={"file": b"bad"})
        await service.client.post("/classify/batch", files=[("files", ("a", b"x")), ("files", ("b", b"bad"))])
        await service.client.post("/classify?top_k=0", files={"file": b"x"})
        assert service.metric("sknet_requests_total", route="/classify", status="200") == 1
        assert service.metric("sknet_requests_total", route="/classify", status="422") == 2
        assert service.metric("sknet_requests_total", route="/classify/batch", status="200") == 1
        assert service.metric("sknet_request_duration_seconds_count", route="/classify") == 3
        assert service.metric("sknet_images_total", outcome="classified") == 2
        assert service.metric("sknet_images_total", outcome="rejected") == 2
        assert service.metric("sknet_rejected_total", reason="image-undecodable") == 1
        assert service.metric("sknet_rejected_total", reason="invalid-parameter") == 1
        assert service.metric("sknet_phase_duration_seconds_count", phase="total") == 2
        assert service.metric("sknet_batch_size_sum") == 2
        assert service.metric("sknet_queue_size") == 0


async def test_limits_and_readiness_are_told() -> None:
    async with serving(max_queue=99, deadline_s=7) as service:
        assert service.metric("sknet_queue_limit") == 99
        assert service.metric("sknet_deadline_seconds") == 7
        assert service.metric("sknet_ready_workers") == 1
        assert 0 <= time.time() - service.metric("sknet_start_time_seconds") < 60
        service.parts.classifier.drain()
        await asyncio.sleep(0)
        assert service.metric("sknet_ready_workers") == 0
    assert b"sknet_ready_workers 0.0" in Metrics().render()


def test_the_queue_is_counted() -> None:
    metrics = Metrics()
    metrics.queue_changed(3)
    metrics.queue_changed(2)
    assert metrics.registry.get_sample_value("sknet_queue_size") == 5
    metrics.queue_changed(-5)
    assert metrics.registry.get_sample_value("sknet_queue_size") == 0


# Several processes: each is a real one, since the library's switch holds for a whole process.

PROCESS = """
import os, sys
from pathlib import Path
from app.context import Timings
from app.metrics import Metrics, Shared
from app.settings import share_metrics
from tests.fakes import fake_info
folder, slot = Path(sys.argv[1]), int(sys.argv[2])
share_metrics(folder)
metrics = Metrics(Shared(folder, slot))
metrics.observe_limits(queue=10, deadline_s=5)
metrics.observe_model("old", fake_info())
metrics.observe_model("default", fake_info())
for _ in range(slot + 1):
    metrics.requests.labels("/classify", 200).inc()
    metrics.observe_phases(Timings(0.001, 0.002, 0.003), 0.01, 4)
metrics.queue_size.inc(slot + 3)
sys.stdout.write(metrics.render().decode())
sys.stdout.flush()
os.kill(os.getpid(), 9)  # as an out-of-memory kill ends it: no chance to write anything more
"""


def process(folder: Path, slot: int) -> dict[str, float]:
    """What a process of that slot counts and tells of all, until it is killed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROCESS, str(folder), str(slot)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -9, done.stderr
    families = text_string_to_metric_families(done.stdout)
    samples = [s for family in families for s in family.samples if s.labels.get("phase", "total") == "total"]
    return {s.name: s.value for s in samples if "_bucket" not in s.name}


def test_any_process_tells_the_sums_of_all(tmp_path: Path) -> None:
    alone = process(tmp_path, 0)
    told = process(tmp_path, 1)
    assert alone["sknet_requests_total"] == 1
    assert told["sknet_requests_total"] == 1 + 2
    assert told["sknet_phase_duration_seconds_count"] == 3
    assert told["sknet_phase_duration_seconds_sum"] == pytest.approx(0.03)
    assert told["sknet_batch_size_sum"] == 12
    assert told["sknet_queue_size"] == 3 + 4
    assert told["sknet_queue_limit"] == 20
    assert told["sknet_deadline_seconds"] == 5
    assert told["sknet_ready_workers"] == 2
    assert told["sknet_model_info"] == 1
    assert told["sknet_model_load_seconds"] == 0.25
    assert told["sknet_start_time_seconds"] > alone["sknet_start_time_seconds"]
    assert set(told) == set(alone)


def test_of_a_dead_process_only_the_counts_stay_and_its_successor_goes_on_with_them(tmp_path: Path) -> None:
    process(tmp_path, 0)
    process(tmp_path, 1)
    for slot in (0, 1):
        forget_gauges(Shared(tmp_path, slot))
    files = len(list(tmp_path.iterdir()))
    told = process(tmp_path, 1)
    assert told["sknet_requests_total"] == 1 + 2 + 2
    assert told["sknet_batch_size_count"] == 5
    assert told["sknet_queue_size"] == 4
    assert told["sknet_ready_workers"] == 1
    forget_gauges(Shared(tmp_path, 1))
    assert len(list(tmp_path.iterdir())) == files  # however often processes are started again


def test_a_death_and_the_start_after_it_change_the_time_of_the_last_start_once(tmp_path: Path) -> None:
    process(tmp_path, 0)
    before = process(tmp_path, 1)["sknet_start_time_seconds"]
    forget_gauges(Shared(tmp_path, 1))
    collected = MultiProcessCollector(None, str(tmp_path)).collect()  # type: ignore[no-untyped-call]
    (family,) = [each for each in collected if each.name == "sknet_start_time_seconds"]
    assert [sample.value for sample in family.samples] == [before]
    assert process(tmp_path, 1)["sknet_start_time_seconds"] > before


async def routes_of(client: httpx.AsyncClient) -> set[str]:
    text = (await client.get("/metrics")).text
    families = text_string_to_metric_families(text)
    return {s.labels["route"] for f in families for s in f.samples if f.name == "sknet_requests"}


async def test_strangers_make_no_new_series(client: httpx.AsyncClient) -> None:
    for n in range(20):
        await client.get(f"/nowhere/{n}")
        await client.get(f"/models/{n}")
        await client.get(f"/static/{n}.js")
        await client.get(f"/problems/{n}")
        await client.put("/classify")
    assert len(await routes_of(client)) <= 6
    assert {"/models/{name}", "unmatched"} <= await routes_of(client)
    methods = [await client.request(f"M{n}", "/livez") for n in range(5)]
    assert {m.status_code for m in methods} == {405}
    assert len(await routes_of(client)) <= 7
