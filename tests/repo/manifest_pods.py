"""What connects a Pod to the product: settings, ports, probes, times, user, resources. Each check tells the faults it finds.

The facts come from where they are decided: the settings, the application's routes, the Dockerfile. It knows nothing of
kustomize, of schemas, nor of the objects that select Pods.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.main import create_app
from app.settings import PREFIX, Settings, SettingsError, load_settings
from app.workers import PATIENCE_S
from tests.fakes import FakeModel

Document = dict[str, Any]
DOCKERFILE = (Path(__file__).parents[2] / "Dockerfile").read_text(encoding="utf-8")
END_S = 5.0  # from the last answer to the end of the process, and the kubelet's own slack
DEFAULT_GRACE_S = 30  # Kubernetes', where a Pod says nothing
_UNITS = {"Mi": 2**20, "Gi": 2**30}


def of_kind(documents: Sequence[Document], kind: str) -> list[Document]:
    """Every object of a kind."""
    return [document for document in documents if document["kind"] == kind]


def pods_of(documents: Sequence[Document]) -> list[Document]:
    """Every specification of a Pod: a Deployment's, or a predictor's of KServe."""
    deployed = [document["spec"]["template"]["spec"] for document in of_kind(documents, "Deployment")]
    return deployed + [document["spec"]["predictor"] for document in of_kind(documents, "InferenceService")]


def variables(documents: Sequence[Document], container: Document) -> dict[str, str]:
    """The environment of a container: of ConfigMaps, then its own."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        for config_map in of_kind(documents, "ConfigMap"):
            if config_map["metadata"]["name"] == source["configMapRef"]["name"]:
                found |= config_map["data"]
    return found | {variable["name"]: variable["value"] for variable in container.get("env", [])}


def settings_of(documents: Sequence[Document], container: Document) -> Settings:
    """The settings with which it would start."""
    given = {name: value for name, value in variables(documents, container).items() if name.startswith(PREFIX)}
    return load_settings({name.removeprefix(PREFIX).lower(): value for name, value in given.items()})


def bytes_of(quantity: str) -> int:
    """A quantity such as 512Mi."""
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


@functools.cache
def paths() -> frozenset[str]:
    """What the application answers to GET."""
    document = create_app(Settings(), load=lambda _: FakeModel()).openapi()
    return frozenset(path for path, methods in document["paths"].items() if "get" in methods)


def settings(documents: Sequence[Document]) -> Iterator[str]:
    """Every SKNET_* variable is one, its value loads, and where it comes from is there."""
    for pod in pods_of(documents):
        for container in pod["containers"]:
            known = {config_map["metadata"]["name"] for config_map in of_kind(documents, "ConfigMap")}
            wanted = {source["configMapRef"]["name"] for source in container.get("envFrom", [])}
            yield from (f"no ConfigMap {name}" for name in wanted - known)
            given = {name for name in variables(documents, container) if name.startswith(PREFIX)}
            fields = {PREFIX + field.upper() for field in Settings.model_fields}
            yield from (f"{name} is no setting" for name in sorted(given - fields))
            try:
                settings_of(documents, container)
            except SettingsError as error:
                yield str(error)


def ports(documents: Sequence[Document]) -> Iterator[str]:
    """A container's ports are those the service listens on, and the image says the first."""
    for pod in pods_of(documents):
        for container in pod["containers"]:
            chosen = settings_of(documents, container)
            listening = {chosen.port} | ({chosen.grpc_port} if chosen.grpc_port else set())
            told = {port["containerPort"] for port in container["ports"]}
            if told != listening:
                yield f"ports {sorted(told)}, the service listens on {sorted(listening)}"
            if not re.search(rf"^EXPOSE\b.*\b{chosen.port}\b", DOCKERFILE, re.M):
                yield f"the image does not expose {chosen.port}"


def probes(documents: Sequence[Document]) -> Iterator[str]:
    """Each probe asks a path of the application on a port of the container."""
    for pod in pods_of(documents):
        for container in pod["containers"]:
            known = {port[key] for port in container["ports"] for key in ("name", "containerPort")}
            for kind, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz"), ("startupProbe", "/readyz")):
                probe = container.get(kind)
                if probe is None:
                    continue
                asked = probe["httpGet"]
                if asked["path"] != path or path not in paths():
                    yield f"{kind} asks {asked['path']}"
                if asked["port"] not in known:
                    yield f"{kind} asks port {asked['port']}"
            if not {"livenessProbe", "readinessProbe"} <= set(container):
                yield "a probe is missing"


def times(documents: Sequence[Document]) -> Iterator[str]:
    """A Pod may take as long to end as its settings say, and a Deployment waits for its start."""
    for pod in pods_of(documents):
        chosen = settings_of(documents, pod["containers"][0])
        needed = chosen.grace_s + chosen.drain_s + PATIENCE_S + END_S
        if pod.get("terminationGracePeriodSeconds", DEFAULT_GRACE_S) < needed:
            yield f"terminationGracePeriodSeconds is below {needed:g}"
        if chosen.grace_s <= 0:
            yield "SKNET_GRACE_S is 0: proxies have no time to notice"
    for deployment in of_kind(documents, "Deployment"):
        start = deployment["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
        if deployment["spec"]["progressDeadlineSeconds"] <= start["periodSeconds"] * start["failureThreshold"]:
            yield "progressDeadlineSeconds is not beyond the time a start may take"


def lockdown(documents: Sequence[Document]) -> Iterator[str]:
    """Pods run as the image's user and may do nothing more than serve."""
    image_user = re.findall(r"^USER ([1-9]\d*):(\d+)$", DOCKERFILE, re.M)  # root only installs: tests/repo/test_dockerfile.py
    for pod in pods_of(documents):
        if pod.get("automountServiceAccountToken") is not False:
            yield "automountServiceAccountToken"
        if pod.get("enableServiceLinks") is not False:  # a Service sknet would set SKNET_PORT
            yield "enableServiceLinks"
        if not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "shareProcessNamespace"}.isdisjoint(pod):
            yield "something of the host"
        for container in pod["containers"]:
            context = pod.get("securityContext", {}) | container["securityContext"]
            expected = {
                "runAsNonRoot": True, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
            }  # fmt: skip
            yield from (key for key, value in expected.items() if context.get(key) != value)
            users = {
                (str(context["runAsUser"]), str(context.get(key, context["runAsUser"]))) for key in ("runAsGroup", "fsGroup")
            }
            if users != set(image_user):
                yield f"runAsUser: {sorted(users)}, the image's is {sorted(set(image_user))}"


def resources(documents: Sequence[Document]) -> Iterator[str]:
    """Whole processors, requests equal to limits, room for the volumes; a GPU where one is asked for."""
    for pod in pods_of(documents):
        for container in pod["containers"]:
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            if not re.fullmatch(r"[1-9]\d*", limits["cpu"]):  # a part is rounded down: `model.device.cpu_limit`
                yield f"cpu: {limits['cpu']} is no whole number"
            if any(limits[name] != requests[name] for name in limits if name != "ephemeral-storage"):
                yield "requests differ from limits"
            written = sum(bytes_of(volume["emptyDir"]["sizeLimit"]) for volume in pod["volumes"] if "emptyDir" in volume)
            if bytes_of(limits["ephemeral-storage"]) <= written:
                yield "ephemeral-storage holds the volumes and no log"
            if (settings_of(documents, container).device == "cuda") != ("nvidia.com/gpu" in limits):
                yield "SKNET_DEVICE and nvidia.com/gpu do not agree"
            tag = container["image"].rpartition(":")[2]
            # On a GPU the one with a compiler, for the engine `compile`, and that one nowhere else.
            if (tag == "gpu") != ("nvidia.com/gpu" in limits) or (tag in ("slim", "gpu") and f" AS {tag}\n" not in DOCKERFILE):
                yield f"image {container['image']}"


def volumes(documents: Sequence[Document]) -> Iterator[str]:
    """What is written or read outside the image is mounted, and every mount has its volume."""
    for pod in pods_of(documents):
        for container in pod["containers"]:
            mounted = {Path(mount["mountPath"]): mount for mount in container["volumeMounts"]}
            if {mount["name"] for mount in mounted.values()} != {volume["name"] for volume in pod["volumes"]}:
                yield "volumes and volumeMounts do not agree"
            cache = {Path(path) for path in re.findall(r"^VOLUME (\S+)$", DOCKERFILE, re.M)}
            yield from (f"{path} cannot be written" for path in {Path("/tmp"), *cache} - set(mounted))
            chosen = settings_of(documents, container)
            if chosen.cache_dir is not None and chosen.cache_dir not in mounted:
                yield f"SKNET_CACHE_DIR {chosen.cache_dir} is no mount"
            if chosen.api_keys_file is not None and not mounted.get(chosen.api_keys_file.parent, {}).get("readOnly"):
                yield f"SKNET_API_KEYS_FILE {chosen.api_keys_file} is not in a read-only mount"


CHECKS = (settings, ports, probes, times, lockdown, resources, volumes)
