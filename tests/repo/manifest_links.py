"""What connects the objects around a Deployment: selectors, scraping, scaling, the network. Each check tells the faults it finds.

It knows nothing of kustomize, nor of schemas.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from prometheus_client import Gauge

from app.metrics import Metrics
from app.settings import Settings
from tests.repo.manifest_pods import Document, of_kind, paths, pods_of, settings_of, variables


def pod_labels(documents: Sequence[Document]) -> dict[str, str]:
    """The labels of the one Deployment's Pods."""
    (deployment,) = of_kind(documents, "Deployment")
    labels: dict[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return labels


@functools.cache
def gauges() -> frozenset[str]:
    """The names of the gauges that the service tells."""
    return frozenset(metric._name for metric in vars(Metrics()).values() if isinstance(metric, Gauge))


def rollout(documents: Sequence[Document]) -> Iterator[str]:
    """An update takes nothing away first, and leaves the number of replicas to the autoscaler."""
    for deployment in of_kind(documents, "Deployment"):
        if deployment["spec"]["strategy"] != {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}:
            yield "strategy"
        if "replicas" in deployment["spec"]:
            yield "replicas"


def _selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def selectors(documents: Sequence[Document]) -> Iterator[str]:
    """Whatever selects Pods selects the Deployment's; ports that are named are there, and each is open."""
    (deployment,) = of_kind(documents, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    chosen = [(deployment["kind"], deployment["spec"]["selector"]["matchLabels"])]
    chosen += [("topologySpreadConstraints", c["labelSelector"]["matchLabels"]) for c in pod["topologySpreadConstraints"]]
    chosen += [("Service", service["spec"]["selector"]) for service in of_kind(documents, "Service")]
    chosen += [("NetworkPolicy", p["spec"]["podSelector"]["matchLabels"]) for p in of_kind(documents, "NetworkPolicy")]
    chosen += [("PodDisruptionBudget", b["spec"]["selector"]["matchLabels"]) for b in of_kind(documents, "PodDisruptionBudget")]
    yield from (f"{who} selects {labels}" for who, labels in chosen if not _selects(labels, pod_labels(documents)))

    names = {port["name"] for port in pod["containers"][0]["ports"]}
    served = {port["targetPort"] for service in of_kind(documents, "Service") for port in service["spec"]["ports"]}
    rules = [rule for policy in of_kind(documents, "NetworkPolicy") for rule in policy["spec"].get("ingress", [])]
    opened = {port["port"] for rule in rules for port in rule["ports"]}
    if not names == served == opened:
        yield f"ports {sorted(names)}, Services lead to {sorted(served)}, NetworkPolicies open {sorted(opened)}"
    if pod["serviceAccountName"] not in {account["metadata"]["name"] for account in of_kind(documents, "ServiceAccount")}:
        yield "no such ServiceAccount"


def scraping(documents: Sequence[Document]) -> Iterator[str]:
    """A ServiceMonitor finds one Service by label and port, the job is the alert rules', and the path is there."""
    for monitor in of_kind(documents, "ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            found = [
                service["metadata"]["name"]
                for service in of_kind(documents, "Service")
                if _selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"].get("labels", {}))
                and endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
            ]
            if found != ["sknet"]:  # Prometheus takes the Service's name for the job
                yield f"scrapes {found}"
            if endpoint["path"] not in paths():
                yield f"scrapes {endpoint['path']}"


def scaling(documents: Sequence[Document]) -> Iterator[str]:
    """Exactly one thing scales the Deployment; one that asks for the queue asks for this one's."""
    (deployment,) = of_kind(documents, "Deployment")
    scalers = of_kind(documents, "HorizontalPodAutoscaler") + of_kind(documents, "ScaledObject")
    if len(scalers) != 1:
        yield f"scaled by {[scaler['kind'] for scaler in scalers]}"
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        if target != {"apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": deployment["metadata"]["name"]}:
            yield f"scales {target}"
        low, high = (scaler["spec"].get(f"{end}Replicas", scaler["spec"].get(f"{end}ReplicaCount")) for end in ("min", "max"))
        if not 1 <= low <= high:
            yield f"from {low} to {high} replicas"
    for scaled in of_kind(documents, "ScaledObject"):
        yield from _queue(scaled, documents)


def _queue(scaled: Document, documents: Sequence[Document]) -> Iterator[str]:
    if not of_kind(documents, "ServiceMonitor"):
        yield "nothing scrapes the queue"
    asked = scaled["spec"]["triggers"][0]["metadata"]
    series = set(re.findall(r"\bsknet_\w+", re.sub(r'"[^"]*"', '""', asked["query"])))
    if not series or not series <= gauges():
        yield f"asks for {sorted(series)}"
    labels = dict(re.findall(r'(\w+)="([^"]*)"', asked["query"]))
    if labels != {"namespace": scaled["metadata"]["namespace"], "job": "sknet"}:
        yield f"asks for {labels}"
    if not 1 <= float(asked["threshold"]) <= Settings().max_queue / 2:
        yield f"threshold {asked['threshold']}"
    takes_over = scaled["metadata"]["annotations"].get("scaledobject.keda.sh/transfer-hpa-ownership") == "true"
    if not takes_over or scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["name"] != "sknet":
        yield "an autoscaler that is there already is not taken over"


def places(documents: Sequence[Document]) -> Iterator[str]:
    """All in one namespace, which is among them and lets only locked-down Pods in."""
    (namespace,) = of_kind(documents, "Namespace")
    others = {document["metadata"].get("namespace") for document in documents if document is not namespace}
    if others != {namespace["metadata"]["name"]}:
        yield f"in {others}"
    if namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "pod-security"


def openings(documents: Sequence[Document]) -> Iterator[str]:
    """Both directions are closed but for what is opened: out go names, the web of public addresses, spans to their collector."""
    policies = [policy["spec"] for policy in of_kind(documents, "NetworkPolicy")]
    if {"Ingress", "Egress"} - {kind for policy in policies for kind in policy["policyTypes"]}:
        yield "a direction is open"
    collector, to_collector = _collector(documents), 0
    for rule in (rule for policy in policies for rule in policy.get("egress", [])):
        numbers = {port["port"] for port in rule["ports"]}
        blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]
        if collector and _leads_to(rule, *collector):
            to_collector += 1
        elif not (numbers == {53} and not blocks) and numbers != {80, 443}:
            yield f"out to {sorted(numbers)}"
        private = {"10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"}
        if any(block["cidr"] == "0.0.0.0/0" and not private <= set(block.get("except", [])) for block in blocks):
            yield "out to private addresses"
    if collector and not to_collector:
        yield f"no way out to {collector}"


def _collector(documents: Sequence[Document]) -> tuple[str, int] | None:
    """The namespace and port that spans are sent to; None where none are."""
    container = pods_of(documents)[0]["containers"][0]
    if not settings_of(documents, container).tracing:
        return None
    given = urlsplit(variables(documents, container).get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"))
    namespace = str(given.hostname).partition(".")[2].partition(".")[0]  # SERVICE.NAMESPACE.svc
    return namespace, given.port or 80


def _leads_to(rule: Document, namespace: str, port: int) -> bool:
    """Whether a rule opens one port of the Pods of one namespace, and nothing else."""
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]
    return bool(rule["to"] == peers and rule["ports"] == [{"port": port, "protocol": "TCP"}])


CHECKS = (rollout, selectors, scraping, scaling, places, openings)
