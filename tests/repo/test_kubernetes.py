"""deploy/kubernetes: every overlay, merged, is valid for the last three versions of Kubernetes and fits the product.

No cluster is asked. That the merged overlays are what kustomize makes of them is for `test_kustomize.py`.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from tests.repo import manifest_links, manifest_pods
from tests.repo.kustomize import build, load
from tests.repo.manifest_pods import Document, of_kind

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
SCHEMAS = Path(__file__).parent / "custom-resources"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
VERSIONS = list(dict.fromkeys(utils.all_versions()))[-3:]  # the package names each twice: lenient and strict
CUSTOM = {"ServiceMonitor", "ScaledObject", "InferenceService"}
Check = Callable[[Sequence[Document]], Iterator[str]]
CHECKS: dict[str, Check] = {check.__name__: check for check in (*manifest_pods.CHECKS, *manifest_links.CHECKS)}


@functools.cache
def _built(overlay: str) -> tuple[Document, ...]:
    return tuple(
        load(FOLDER / "kserve" / "inferenceservice.yaml") if overlay == "kserve" else build(FOLDER / "overlays" / overlay)
    )


def merged(overlay: str) -> list[Document]:
    """The objects of an overlay, or of KServe's file, for the test to do with as it likes."""
    return copy.deepcopy(list(_built(overlay)))


@functools.cache
def custom(kind: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def refused(document: Document, version: str) -> str | None:
    """Why a version of Kubernetes, or the maker of a custom resource, would refuse it."""
    if document["kind"] in CUSTOM:
        for error in custom(document["kind"]).iter_errors(document):
            return f"{error.json_path}: {error.message}"
    if document["kind"] == "InferenceService":
        predictor = {k: v for k, v in document["spec"]["predictor"].items() if k not in ("minReplicas", "maxReplicas", "timeout")}
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": document["metadata"], "spec": predictor}
    elif document["kind"] in CUSTOM:
        return None
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    return None


def test_there_is_something_to_check() -> None:
    assert {"cpu", "gpu", "cpu-keda", "gpu-keda", "full"} <= set(OVERLAYS)
    assert len(VERSIONS) == len({version.rpartition(".")[0] for version in VERSIONS}) == 3
    components = {path.name for path in (FOLDER / "components").iterdir()}
    (full,) = load(FOLDER / "overlays" / "full" / "kustomization.yaml")
    assert {Path(name).name for name in full["components"]} == components  # so each is merged and validated


def test_every_object_of_every_overlay_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    # Else every object would read and parse a megabyte of schemas anew.
    monkeypatch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
    distinct = {json.dumps(document): document for name in [*OVERLAYS, "kserve"] for document in merged(name)}
    assert {document["kind"] for document in distinct.values()} >= CUSTOM | {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Namespace", "NetworkPolicy", "PodDisruptionBudget", "Service",
        "ServiceAccount",
    }  # fmt: skip
    faults = [(d["kind"], version, why) for d in distinct.values() for version in VERSIONS if (why := refused(d, version))]
    assert faults == []


def put(documents: list[Document], kind: str, path: str, value: object) -> None:
    """Set what is at a path (as of RFC 6901) in the first object of a kind; None takes it away."""
    place: Any = of_kind(documents, kind)[0]
    *parents, last = (step.replace("~1", "/") for step in path.split("/"))
    for step in parents:
        place = place[int(step) if isinstance(place, list) else step]
    if value is None:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value


POD = "spec/template/spec"
CONTAINER = f"{POD}/containers/0"
PREDICTOR = "spec/predictor"
TRIGGER = "spec/triggers/0/metadata"


@pytest.mark.parametrize(
    ("overlay", "kind", "path", "value"),
    [
        ("cpu", "Deployment", f"{POD}/hostNetwrok", True),
        ("cpu", "Deployment", f"{CONTAINER}/ports/0/containerPort", "8000"),
        ("cpu", "Deployment", f"{CONTAINER}/livenessProbe/httpGet/port", None),
        ("cpu", "HorizontalPodAutoscaler", "spec/maxReplicas", None),
        ("cpu", "NetworkPolicy", "spec/egress/0/too", []),
        ("cpu", "Service", "spec/ports/0/targetPort", ["http"]),
        ("cpu-keda", "ServiceMonitor", "spec/endpoints/0/interval", 15),
        ("cpu-keda", "ServiceMonitor", "spec/endpoints/0/target", "http"),
        ("cpu-keda", "ScaledObject", f"{TRIGGER}/threshold", 16),
        ("cpu-keda", "ScaledObject", "spec/triggers/0/type", "cpu"),
        ("cpu-keda", "ScaledObject", "spec/maxReplicas", 3),
        ("kserve", "InferenceService", f"{PREDICTOR}/protocolVersion", "v2"),
        ("kserve", "InferenceService", f"{PREDICTOR}/containers/0/ports/0/name", "http"),
        ("kserve", "InferenceService", f"{PREDICTOR}/volumes/0/emptyDri", {}),
    ],
)
def test_the_schemas_would_notice(overlay: str, kind: str, path: str, value: object) -> None:
    documents = merged(overlay)
    put(documents, kind, path, value)
    assert refused(of_kind(documents, kind)[0], VERSIONS[-1])


@pytest.mark.parametrize("overlay", [*OVERLAYS, "kserve"])
def test_it_fits_the_product(overlay: str) -> None:
    checks = manifest_pods.CHECKS if overlay == "kserve" else CHECKS.values()
    assert [(check.__name__, fault) for check in checks for fault in check(merged(overlay))] == []


DATA = "data/SKNET_"
MUTATIONS: list[tuple[str, str, str, str, object]] = [
    ("settings", "cpu", "ConfigMap", f"{DATA}PROT", "8000"),
    ("settings", "cpu", "ConfigMap", f"{DATA}DRAIN_S", "soon"),
    ("settings", "cpu", "ConfigMap", "metadata/name", "sknet"),
    ("ports", "cpu", "ConfigMap", f"{DATA}PORT", "8080"),
    ("ports", "full", "ConfigMap", f"{DATA}GRPC_PORT", "9000"),
    ("probes", "cpu", "Deployment", f"{CONTAINER}/livenessProbe/httpGet/path", "/readyz"),
    ("probes", "cpu", "Deployment", f"{CONTAINER}/readinessProbe/httpGet/port", "web"),
    ("probes", "kserve", "InferenceService", f"{PREDICTOR}/containers/0/readinessProbe", None),
    ("times", "cpu", "Deployment", f"{POD}/terminationGracePeriodSeconds", 35),
    ("times", "cpu", "ConfigMap", f"{DATA}DRAIN_S", "60"),
    ("times", "cpu", "ConfigMap", f"{DATA}GRACE_S", "0"),
    ("times", "gpu", "Deployment", "spec/progressDeadlineSeconds", 600),
    ("times", "kserve", "InferenceService", f"{PREDICTOR}/containers/0/env/6/value", "25"),
    ("rollout", "cpu", "Deployment", "spec/strategy/rollingUpdate/maxUnavailable", 1),
    ("rollout", "cpu", "Deployment", "spec/replicas", 3),
    ("lockdown", "cpu", "Deployment", f"{POD}/securityContext/runAsUser", 1000),
    ("lockdown", "cpu", "Deployment", f"{POD}/securityContext/seccompProfile", None),
    ("lockdown", "cpu", "Deployment", f"{POD}/enableServiceLinks", None),
    ("lockdown", "cpu", "Deployment", f"{POD}/automountServiceAccountToken", True),
    ("lockdown", "cpu", "Deployment", f"{CONTAINER}/securityContext/readOnlyRootFilesystem", None),
    ("lockdown", "kserve", "InferenceService", f"{PREDICTOR}/containers/0/securityContext/capabilities/drop", ["NET_RAW"]),
    ("resources", "cpu", "Deployment", f"{CONTAINER}/resources/limits/cpu", "1500m"),
    ("resources", "cpu", "Deployment", f"{CONTAINER}/resources/requests/memory", "1Gi"),
    ("resources", "cpu", "Deployment", f"{CONTAINER}/resources/limits/ephemeral-storage", "2Gi"),
    ("resources", "gpu", "Deployment", f"{CONTAINER}/resources/limits/nvidia.com~1gpu", None),
    ("resources", "gpu", "Deployment", f"{CONTAINER}/image", "sknet-serve:slim"),
    ("resources", "gpu", "Deployment", f"{CONTAINER}/image", "sknet-serve"),
    ("resources", "cpu", "Deployment", f"{CONTAINER}/image", "sknet-serve:gpu"),
    ("volumes", "cpu", "Deployment", f"{CONTAINER}/volumeMounts/0/mountPath", "/var/tmp"),
    ("volumes", "cpu", "ConfigMap", f"{DATA}CACHE_DIR", "/cache"),
    ("volumes", "full", "ConfigMap", f"{DATA}API_KEYS_FILE", "/etc/keys"),
    ("volumes", "full", "Deployment", f"{POD}/volumes/0/name", "other"),
    ("selectors", "cpu", "Service", "spec/selector", {"app": "sknet"}),
    ("selectors", "cpu", "PodDisruptionBudget", "spec/selector/matchLabels", {}),
    ("selectors", "cpu", "Service", "spec/ports/0/targetPort", "web"),
    ("selectors", "cpu", "NetworkPolicy", "spec/ingress/0/ports/0/port", 8080),
    ("selectors", "cpu", "ServiceAccount", "metadata/name", "other"),
    ("scraping", "cpu-keda", "ServiceMonitor", "spec/endpoints/0/port", "metrics"),
    ("scraping", "cpu-keda", "ServiceMonitor", "spec/endpoints/0/path", "/metric"),
    ("scraping", "cpu-keda", "Service", "metadata/labels", None),
    ("scaling", "cpu", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name", "other"),
    ("scaling", "cpu-keda", "ScaledObject", "spec/minReplicaCount", 11),
    ("scaling", "cpu-keda", "ScaledObject", f"{TRIGGER}/query", 'sum(sknet_queue_length{namespace="sknet",job="sknet"})'),
    ("scaling", "gpu-keda", "ScaledObject", f"{TRIGGER}/query", 'sum(sknet_queue_size{namespace="sknet",job="sknet"})'),
    ("scaling", "cpu-keda", "ScaledObject", f"{TRIGGER}/threshold", "300"),
    ("scaling", "cpu-keda", "ScaledObject", "spec/advanced/horizontalPodAutoscalerConfig/name", "other"),
    ("places", "cpu", "Service", "metadata/namespace", "default"),
    ("places", "cpu", "Namespace", "metadata/labels/pod-security.kubernetes.io~1enforce", "baseline"),
    ("openings", "cpu", "NetworkPolicy", "spec/policyTypes", ["Ingress"]),
    ("openings", "cpu", "NetworkPolicy", "spec/egress/0/ports/0/port", 443),
    ("openings", "cpu", "ConfigMap", f"{DATA}TRACING", "true"),
    ("openings", "full", "ConfigMap", f"{DATA}TRACING", "false"),
    ("openings", "full", "ConfigMap", "data/OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector.elsewhere.svc:4318"),
    ("openings", "full", "ConfigMap", "data/OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector.observability.svc:4317"),
]


@pytest.mark.parametrize(("name", "overlay", "kind", "path", "value"), MUTATIONS)
def test_each_check_can_fail(name: str, overlay: str, kind: str, path: str, value: object) -> None:
    documents = merged(overlay)
    put(documents, kind, path, value)
    assert list(CHECKS[name](documents))


def test_every_check_was_seen_to_fail() -> None:
    assert {name for name, *_ in MUTATIONS} == set(CHECKS)


def test_two_autoscalers_would_be_noticed() -> None:
    both = merged("cpu-keda") + of_kind(merged("cpu"), "HorizontalPodAutoscaler")
    assert any(fault.startswith("scaled by") for fault in manifest_links.scaling(both))


def test_private_addresses_would_be_noticed() -> None:
    documents = merged("full")
    (policy,) = (p for p in of_kind(documents, "NetworkPolicy") if p["metadata"]["name"] == "sknet-downloads")
    policy["spec"]["egress"][0]["to"][0]["ipBlock"]["except"].remove("169.254.0.0/16")
    assert list(manifest_links.openings(documents)) == ["out to private addresses"]


@pytest.mark.parametrize("peers", [[], [{"namespaceSelector": {}}], [{"ipBlock": {"cidr": "0.0.0.0/0"}}]])
def test_spans_that_may_go_anywhere_would_be_noticed(peers: list[Document]) -> None:
    documents = merged("full")
    (policy,) = (p for p in of_kind(documents, "NetworkPolicy") if p["metadata"]["name"] == "sknet-tracing")
    policy["spec"]["egress"][0]["to"] = peers
    assert list(manifest_links.openings(documents))


def test_replicas_by_the_queue_move_as_those_by_processor_time() -> None:
    (by_time,), (by_queue,) = of_kind(merged("cpu"), "HorizontalPodAutoscaler"), of_kind(merged("cpu-keda"), "ScaledObject")
    assert by_queue["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == by_time["spec"]["behavior"]
    assert by_queue["spec"]["minReplicaCount"] == by_time["spec"]["minReplicas"]
    assert by_queue["spec"]["maxReplicaCount"] == by_time["spec"]["maxReplicas"]


def test_a_gpu_replica_is_put_where_a_gpu_is() -> None:
    (deployment,) = of_kind(merged("gpu"), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["nvidia.com/gpu"]
    wanted = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [e["key"] for term in wanted for e in term["matchExpressions"]] == ["nvidia.com/gpu.present"]
    settings = manifest_pods.settings_of(merged("gpu"), pod["containers"][0])
    assert (settings.device, settings.workers) == ("cuda", 1)


def test_kserve_is_told_the_protocol_and_calls_the_model_by_its_name() -> None:
    (service,) = merged("kserve")
    (container,) = service["spec"]["predictor"]["containers"]
    settings = manifest_pods.settings_of([service], container)
    assert settings.model_name == service["metadata"]["name"]  # KServe's default name of the model
    assert "v2" in settings.dialects.split(",")
    assert manifest_pods.variables([service], container)["PROTOCOL"] == "v2"


def readme_section() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n### Kubernetes\n")[2]
    return re.split(r"^##+ ", text, maxsplit=1, flags=re.M)[0]


def test_the_readme_has_every_folder_and_no_other() -> None:
    named = {(kind, name) for kind, name in re.findall(r"`(overlays|components|kserve)/([\w.-]+)`", readme_section())}
    there = {(path.parent.name, path.name) for kind in ("overlays", "components", "kserve") for path in (FOLDER / kind).iterdir()}
    assert named == there
    used = {Path(path).name for path in re.findall(r"deploy/kubernetes/overlays/[\w-]+", readme_section())}
    assert used == {"cpu", "mine"}  # the latter is the next test's


def test_the_readmes_own_overlay_fits_the_product(tmp_path: Path) -> None:
    (written,) = re.findall(r"<<'END'\n(.*?)^END$", readme_section(), re.S | re.M)
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    mine = tmp_path / "kubernetes" / "overlays" / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(written, encoding="utf-8")
    documents = build(mine)
    assert [(check.__name__, fault) for check in CHECKS.values() for fault in check(documents)] == []
    (container,) = manifest_pods.pods_of(documents)[0]["containers"]
    assert container["image"] == "REGISTRY/sknet-serve:1"
    assert manifest_pods.settings_of(documents, container).checkpoint == "skresnet18.ra_in1k"


def test_the_readme_says_where_an_image_comes_from_before_one_is_wanted() -> None:
    """Of the GPU overlay and both examples: the first is the CPU overlay with its image put elsewhere, the second needs torch."""
    first, mine = re.findall(r"^```sh\n(.*?)^```$", readme_section(), re.S | re.M)
    (wanted,) = re.findall(r"docker build --target slim -t (\S+) \.", first.partition("kubectl")[0])
    assert f"docker push {wanted}\n" in first.partition("kubectl")[0]
    ((old, new),) = re.findall(r"sed 's\|(.*?)\|(.*?)\|'", first)
    (deployment,) = of_kind([yaml.safe_load(yaml.safe_dump(d).replace(old, new)) for d in merged("cpu")], "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == wanted

    (container,) = manifest_pods.pods_of(merged("gpu"))[0]["containers"]
    tag = container["image"].rpartition(":")[2]
    assert f"`docker build --target {tag} -t REGISTRY/sknet-serve:{tag} .`" in readme_section()

    assert "docker build -t REGISTRY/sknet-serve:1 ." in mine.partition("kubectl")[0]  # no `slim`: no graph of these weights
    assert "create secret generic sknet-keys --from-file=keys=" in mine.partition("rollout status")[0]
    assert "rollout status" in mine


def test_nothing_of_it_gets_into_the_image() -> None:
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in kept
    assert not any(line.startswith("!deploy") for line in kept)


def test_no_secret_lies_in_a_manifest() -> None:
    for file in FOLDER.rglob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            assert not isinstance(document, dict) or document.get("kind") != "Secret"
            assert "SKNET_API_KEYS=" not in file.read_text(encoding="utf-8")
