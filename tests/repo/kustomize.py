"""What `kubectl kustomize FOLDER` gives, for the few fields that deploy/kubernetes uses: `python -m tests.repo.kustomize FOLDER`.

It stands in for a program that a fresh machine does not have. So it is strict: a field, a kind or a value that it does not
know is refused, and never passed over. It reads no network and asks no cluster.

Order: as kustomize's `KustTarget.accumulateTarget` has it. Resources, generators, components (which so have the last word over
a setting), then patches, namespace, labels and images; at the very end the hashed names.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.repo.strategic import Document, Unsupported, apply_operations, merge

KINDS = {"Kustomization": "kustomize.config.k8s.io/v1beta1", "Component": "kustomize.config.k8s.io/v1alpha1"}
FIELDS = {"apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "patches", "labels", "images"}
CLUSTER_WIDE = {"Namespace"}
NAMESPACED = {
    "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "ScaledObject", "Service",
    "ServiceAccount", "ServiceMonitor",
}  # fmt: skip
_HASH_LETTERS = str.maketrans("013ae", "ghkmt")  # kustomize's `hasher.encode`: no vowels, no look-alikes


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that comes twice, of which PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(set(keys)) < len(keys):
            raise Unsupported(f"a key comes twice, {node.start_mark}")
        return super().construct_mapping(node, deep)


@dataclass
class _Objects:
    """The objects so far, and the names of those ConfigMaps that are generated."""

    documents: list[Document] = field(default_factory=list)
    generated: set[str] = field(default_factory=set)

    def add(self, document: Document) -> None:
        if identity(document) in map(identity, self.documents):
            raise Unsupported(f"{identity(document)} comes twice")
        self.documents.append(document)

    def find(self, kind: str, name: str) -> int:
        found = [i for i, d in enumerate(self.documents) if (d["kind"], d["metadata"]["name"]) == (kind, name)]
        if len(found) != 1:
            raise Unsupported(f"{kind} {name}: {len(found)} objects are called so")
        return found[0]


def load(file: Path) -> list[Any]:
    """Every document of a YAML file.

    Raises:
        Unsupported: a key that comes twice in one map.
    """
    return list(yaml.load_all(file.read_text(encoding="utf-8"), _StrictLoader))


def identity(document: Mapping[str, Any]) -> tuple[str, str, str]:
    """API version, kind and name: within one overlay, an object's own."""
    return document["apiVersion"], document["kind"], document["metadata"]["name"]


def build(folder: Path) -> list[Document]:
    """The merged objects of an overlay.

    Raises:
        Unsupported: something in it, or below it, that this does not know.
    """
    objects = _Objects()
    _accumulate(folder, objects, "Kustomization")
    _hash_names(objects)
    return objects.documents


def _accumulate(folder: Path, objects: _Objects, kind: str) -> None:
    (wanted,) = load(folder / "kustomization.yaml")
    if wanted.get("kind") != kind or wanted.get("apiVersion") != KINDS[kind]:
        raise Unsupported(f"{folder}: a {kind} of {KINDS[kind]} is expected")
    if unknown := set(wanted) - FIELDS:
        raise Unsupported(f"{folder}: {sorted(unknown)}")
    for name in wanted.get("resources", []):
        _add_resource(folder / name, objects)
    for generator in wanted.get("configMapGenerator", []):
        _generate(generator, objects)
    for name in wanted.get("components", []):
        _accumulate(folder / name, objects, "Component")
    for patch in wanted.get("patches", []):
        _patch(patch, folder, objects)
    if "namespace" in wanted:
        for document in objects.documents:
            _put_into(document, wanted["namespace"])
    for label in wanted.get("labels", []):
        _label(label, objects.documents)
    for image in wanted.get("images", []):
        _name_image(image, objects.documents)


def _add_resource(path: Path, objects: _Objects) -> None:
    if path.is_dir():
        below = _Objects()
        _accumulate(path, below, "Kustomization")
        objects.generated |= below.generated
        found = below.documents
    else:
        found = load(path)
    for document in found:
        if document["kind"] not in CLUSTER_WIDE | NAMESPACED:
            raise Unsupported(f"{path}: kind {document['kind']}")
        objects.add(document)


def _generate(generator: Mapping[str, Any], objects: _Objects) -> None:
    if not {"name", "literals"} <= set(generator) <= {"name", "literals", "behavior"}:
        raise Unsupported(f"configMapGenerator with {sorted(generator)}")
    data = dict(_literal(text) for text in generator["literals"])
    if len(data) < len(generator["literals"]):
        raise Unsupported(f"configMapGenerator {generator['name']}: a key comes twice")
    if "behavior" not in generator:
        objects.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data})
        objects.generated.add(generator["name"])
    elif generator["behavior"] == "merge" and generator["name"] in objects.generated:
        objects.documents[objects.find("ConfigMap", generator["name"])]["data"].update(data)
    else:
        raise Unsupported(f"configMapGenerator {generator['name']}: behavior {generator['behavior']}")


def _literal(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    # kustomize takes quotes off, and Go's JSON, which is hashed, writes these otherwise than Python's.
    if not (key and equals) or not text.isascii() or set(text) & set("\"'<>&\\"):
        raise Unsupported(f"the literal {text!r}")
    return key, value


def _patch(patch: Mapping[str, Any], folder: Path, objects: _Objects) -> None:
    if not {"path"} <= set(patch) <= {"path", "target"} or not set(patch.get("target", {})) <= {"kind", "name"}:
        raise Unsupported(f"a patch with {dict(patch)}")
    (content,) = load(folder / patch["path"])
    if isinstance(content, list):
        if set(patch.get("target", {})) != {"kind", "name"}:
            raise Unsupported(f"{patch['path']}: a JSON patch needs a target with kind and name")
        index = objects.find(patch["target"]["kind"], patch["target"]["name"])
        objects.documents[index] = apply_operations(objects.documents[index], content)
        return
    if "target" in patch:
        raise Unsupported(f"{patch['path']}: a strategic merge patch with a target")
    index = objects.find(content["kind"], content["metadata"]["name"])
    if identity(content) != identity(objects.documents[index]) or set(content["metadata"]) != {"name"}:
        raise Unsupported(f"{patch['path']}: another apiVersion than the object's, or metadata beside the name")
    merged = merge(objects.documents[index], content)
    objects.documents[index : index + 1] = [] if merged is None else [merged]


def _put_into(document: Document, namespace: str) -> None:
    if document["kind"] == "Namespace":
        document["metadata"]["name"] = namespace
    else:
        document["metadata"]["namespace"] = namespace


def _label(label: Mapping[str, Any], documents: Iterable[Document]) -> None:
    if not {"pairs"} <= set(label) <= {"pairs", "includeTemplates"}:
        raise Unsupported(f"labels with {sorted(label)}")
    for document in documents:
        places = [document["metadata"]]
        if document["kind"] == "Deployment" and label.get("includeTemplates"):
            places.append(document["spec"]["template"]["metadata"])
        for place in places:
            place.setdefault("labels", {}).update(label["pairs"])


def _name_image(image: Mapping[str, Any], documents: Iterable[Document]) -> None:
    if not {"name"} < set(image) <= {"name", "newName", "newTag"}:
        raise Unsupported(f"images with {sorted(image)}")
    for container in _containers(documents):
        found = re.fullmatch(rf"{re.escape(image['name'])}(:[\w.-]+)?", container["image"])
        if found:
            tag = f":{image['newTag']}" if "newTag" in image else found[1] or ""
            container["image"] = image.get("newName", image["name"]) + tag


def _pods(documents: Iterable[Document]) -> list[Document]:
    return [document["spec"]["template"]["spec"] for document in documents if document["kind"] == "Deployment"]


def _containers(documents: Iterable[Document]) -> list[Document]:
    return [container for pod in _pods(documents) for key in ("initContainers", "containers") for container in pod.get(key, [])]


def content_hash(data: Mapping[str, str]) -> str:
    """The end of a generated ConfigMap's name: ten letters of the SHA-256 of its content (kustomize's `api/hasher`).

    The name is in it as an empty text: kustomize looks for a field "metadata/name", and none is called so.
    """
    text = json.dumps({"data": data, "kind": "ConfigMap", "name": ""}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10].translate(_HASH_LETTERS)


def _hash_names(objects: _Objects) -> None:
    renamed = {}
    for name in objects.generated:
        config_map = objects.documents[objects.find("ConfigMap", name)]
        renamed[name] = config_map["metadata"]["name"] = f"{name}-{content_hash(config_map['data'])}"
    for pod in _pods(objects.documents):
        if renamed and any("configMap" in volume or "projected" in volume for volume in pod.get("volumes", [])):
            raise Unsupported("a volume of a ConfigMap: references in it are not renamed here")
    for container in _containers(objects.documents):
        if renamed and any("valueFrom" in variable for variable in container.get("env", [])):
            raise Unsupported("a variable from elsewhere: references in it are not renamed here")
        for source in container.get("envFrom", []):
            if source.get("configMapRef", {}).get("name") in renamed:
                source["configMapRef"]["name"] = renamed[source["configMapRef"]["name"]]


def to_text(documents: Iterable[Document]) -> str:
    """As YAML, for people."""
    return yaml.safe_dump_all(copy.deepcopy(list(documents)), sort_keys=False, width=130)


if __name__ == "__main__":
    sys.stdout.write("---\n".join(to_text([document]) for given in sys.argv[1:] for document in build(Path(given))))
