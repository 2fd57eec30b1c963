"""Monitoring: rules and dashboard ask only for what the service tells; every file is well-formed and finds the others.

Whether the rules fire when they should is for `promtool test rules`, which deploy/monitoring/check.sh runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from app.metrics import Metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
DASHBOARD = FOLDER / "grafana" / "dashboards" / "sknet.json"
SERIES = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_sum", "_count")}
OF_PROMETHEUS = {"job", "instance", "le", "alertname", "severity"}  # labels that the service does not give


def load_yaml(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def series() -> dict[str, set[str]]:
    """Every series that the service can tell, with its labels."""
    metrics = [metric for metric in vars(Metrics()).values() if isinstance(metric, MetricWrapperBase)]
    return {m._name + suffix: set(m._labelnames) for m in metrics for suffix in SERIES[type(m)]}


def rules(kind: str) -> list[dict[str, Any]]:
    return [rule for group in load_yaml("alerts.yml")["groups"] for rule in group["rules"] if kind in rule]


def expressions_of_rules() -> list[str]:
    return [rule["expr"] for kind in ("record", "alert") for rule in rules(kind)]


def expressions_of_dashboard(node: object = None) -> Iterator[str]:
    found = json.loads(DASHBOARD.read_text(encoding="utf-8")) if node is None else node
    if isinstance(found, dict):
        if isinstance(found.get("expr"), str):
            yield found["expr"]
        if isinstance(found.get("query"), dict):
            yield found["query"]["query"]
    for child in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        if child:
            yield from expressions_of_dashboard(child)


EXPRESSIONS = [*expressions_of_rules(), *expressions_of_dashboard()]


def unknown(expression: str) -> set[str]:
    """Series and labels of an expression that nothing gives."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    known = series() | {rule["record"]: {"job", "status"} for rule in rules("record")}
    asked = set(re.findall(r"\bsknet[_:][a-z0-9_:]+", bare))
    labels = {label for name in asked for label in known.get(name, set())} | OF_PROMETHEUS
    used = set(re.findall(r"[{,]\s*([a-z_]+)\s*(?:=~|!~|!=|=)", bare))
    used |= {word for listed in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", bare) for word in re.split(r"\s*,\s*", listed.strip())}
    return (asked - set(known)) | (used - labels)


def test_there_is_something_to_check() -> None:
    assert len(expressions_of_rules()) >= 12
    assert len(list(expressions_of_dashboard())) >= 18


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_is_asked_for_is_told(expression: str) -> None:
    assert re.search(r"\b(sknet[_:]|up\b)", expression)
    assert unknown(expression) == set()


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("rate(sknet_request_total[5m])", "sknet_request_total"),
        ("sknet:nothing:ratio", "sknet:nothing:ratio"),
        ('sknet_requests_total{code="200"}', "code"),
        ("sum by (phase) (sknet_requests_total)", "phase"),
    ],
)
def test_a_wrong_name_is_noticed(expression: str, found: str) -> None:
    assert unknown(expression) == {found}


def test_every_metric_is_looked_at_somewhere() -> None:
    asked = " ".join(EXPRESSIONS)
    metrics = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in series()}
    assert {name for name in metrics if name not in asked} == set()


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for alert in rules("alert"):
        assert alert["labels"]["severity"] in ("critical", "warning"), alert["alert"]
        assert set(alert["annotations"]) == {"summary", "description"}
    names = [alert["alert"] for alert in rules("alert")]
    assert len(set(names)) == len(names) >= 8


def test_every_alert_is_made_to_fire_by_the_rule_tests() -> None:
    text = (FOLDER / "alerts_test.yml").read_text(encoding="utf-8")
    assert load_yaml("alerts_test.yml")["rule_files"] == ["alerts.yml"]
    assert {alert["alert"] for alert in rules("alert") if alert["alert"] not in text} == set()


def test_prometheus_reads_these_rules_and_asks_the_service_of_the_compose_file() -> None:
    config = load_yaml("prometheus.yml")
    assert config["rule_files"] == ["alerts.yml"]
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "sknet"
    assert "metrics_path" not in job  # /metrics is what Prometheus asks for by itself
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    for target in job["static_configs"][0]["targets"]:
        name, _, port = target.partition(":")
        assert name in services
        assert port == "8000"


def test_grafana_finds_its_data_source_and_dashboard() -> None:
    (source,) = load_yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert source["jsonData"]["timeInterval"] == load_yaml("prometheus.yml")["global"]["scrape_interval"]
    (provider,) = load_yaml("grafana/provisioning/dashboards/sknet.yml")["providers"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    mounts = dict(mount.removesuffix(":ro").split(":") for mount in services["grafana"]["volumes"])
    assert mounts["./deploy/monitoring/grafana/dashboards"] == provider["options"]["path"]
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] == source["uid"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["title"] and panel["description"] and panel["targets"] for panel in dashboard["panels"])


def test_panels_do_not_cover_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
