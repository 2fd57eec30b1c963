"""A strategic merge patch and a JSON patch on one Kubernetes object, as kustomize applies them; refuses what it does not know.

It knows which lists are merged item by item and which are replaced, for the few kinds and places that are patched here. It
knows nothing of files.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

Document = dict[str, Any]
_POD = "spec.template.spec"
_CONTAINER = f"{_POD}.containers.*"
# Kubernetes' API reference, "patch strategy: merge" with its "patch merge key"; by the kind and the path of the list.
MERGED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("Deployment", f"{_POD}.containers"): ("name",),
    ("Deployment", f"{_POD}.initContainers"): ("name",),
    ("Deployment", f"{_POD}.volumes"): ("name",),
    ("Deployment", f"{_POD}.topologySpreadConstraints"): ("topologyKey", "whenUnsatisfiable"),
    ("Deployment", f"{_CONTAINER}.env"): ("name",),
    ("Deployment", f"{_CONTAINER}.ports"): ("containerPort", "protocol"),
    ("Deployment", f"{_CONTAINER}.volumeMounts"): ("mountPath",),
    ("Service", "spec.ports"): ("port", "protocol"),
}
# Patch strategy atomic, or none said: the patch's list takes the place of the other.
REPLACED = frozenset(
    {
        ("Deployment", f"{_POD}.tolerations"),
        ("Deployment", f"{_POD}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"),
        ("Deployment", f"{_CONTAINER}.envFrom"),
        ("Deployment", f"{_CONTAINER}.args"),
        ("HorizontalPodAutoscaler", "spec.metrics"),
        ("NetworkPolicy", "spec.ingress"),
        ("NetworkPolicy", "spec.egress"),
    }
)
_DIRECTIVE = "$patch"


class Unsupported(ValueError):
    """Something that kustomize may know and this does not, so that the result would be another."""


def merge(document: Document, patch: Mapping[str, Any]) -> Document | None:
    """The object after a strategic merge patch; None where the patch deletes it.

    Raises:
        Unsupported: a directive other than `$patch: delete`, or a list whose strategy is not known here.
    """
    if _deletes(patch):
        return None
    return _merge_map(document, patch, document["kind"], "")


def _deletes(patch: Mapping[str, Any]) -> bool:
    directives = {key: value for key, value in patch.items() if key.startswith("$")}
    if directives not in ({}, {_DIRECTIVE: "delete"}):
        raise Unsupported(f"directive {directives}: only {_DIRECTIVE}: delete is known")
    return bool(directives)


def _merge_map(old: Mapping[str, Any], patch: Mapping[str, Any], kind: str, path: str) -> Document:
    if _deletes(patch):
        raise Unsupported(f"{_DIRECTIVE} at {path}: known for whole objects and for items of lists only")
    merged = copy.deepcopy(dict(old))
    for key, value in patch.items():
        here = f"{path}.{key}" if path else key
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key, {})
            if not isinstance(below, Mapping):
                raise Unsupported(f"{here} is a map in the patch and none in the object")
            merged[key] = _merge_map(below, value, kind, here)
        elif isinstance(value, list):
            merged[key] = _merge_list(merged.get(key, []), value, kind, here)
        else:
            merged[key] = value
    return merged


def _merge_list(old: object, patch: list[Any], kind: str, path: str) -> list[Any]:
    if not isinstance(old, list):
        raise Unsupported(f"{path} is a list in the patch and none in the object")
    if (kind, path) in REPLACED:
        if any(isinstance(item, Mapping) and _DIRECTIVE in item for item in patch):
            raise Unsupported(f"{_DIRECTIVE} in {path}, a list that is replaced")
        return copy.deepcopy(patch)
    keys = MERGED.get((kind, path))
    if keys is None:
        raise Unsupported(f"the list {path} of {kind}: not known whether it is merged or replaced")
    return _merge_items(old, patch, keys, kind, path)


def _merge_items(old: list[Any], patch: list[Any], keys: Sequence[str], kind: str, path: str) -> list[Any]:
    """The patch's items first, each merged into its counterpart, then the others: kustomize's order."""
    named = {_name(item, keys, path): item for item in old}
    if len(named) < len(old):
        raise Unsupported(f"{path} has two items of the same {'/'.join(keys)}")
    merged = []
    for item in patch:
        counterpart = named.pop(_name(item, keys, path), None)
        if not _deletes(item):
            merged.append(_merge_map(counterpart or {}, item, kind, f"{path}.*"))
        elif counterpart is None:
            raise Unsupported(f"{path}: {item} deletes what is not there")
    return merged + list(named.values())


def _name(item: object, keys: Sequence[str], path: str) -> tuple[Any, ...]:
    if not isinstance(item, Mapping) or any(key not in item for key in keys):
        raise Unsupported(f"an item of {path} lacks {' or '.join(keys)}: {item}")
    return tuple(item[key] for key in keys)


def apply_operations(document: Document, operations: Sequence[Mapping[str, Any]]) -> Document:
    """The object after a JSON patch (RFC 6902) of `replace`, and of `add` to maps.

    Raises:
        Unsupported: another operation or member, or a path that is not there.
    """
    result = copy.deepcopy(document)
    for operation in operations:
        if set(operation) != {"op", "path", "value"} or operation["op"] not in ("add", "replace"):
            raise Unsupported(f"operation {dict(operation)}: only add and replace, with path and value, are known")
        *parents, last = _pointer(operation["path"])
        place: Any = result
        for step in parents:
            place = place[_step(place, step, operation["path"])]
        if operation["op"] == "add" and isinstance(place, dict):
            place[last] = operation["value"]
        elif operation["op"] == "replace":
            place[_step(place, last, operation["path"])] = operation["value"]
        else:
            raise Unsupported(f"add at {operation['path']}: known for members of maps only")
    return result


def _pointer(path: str) -> list[str]:
    if not path.startswith("/"):
        raise Unsupported(f"the path {path!r} does not begin with a slash")
    return [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")]


def _step(place: object, step: str, path: str) -> str | int:
    if isinstance(place, list) and step.isdecimal() and int(step) < len(place):
        return int(step)
    if isinstance(place, dict) and step in place:
        return step
    raise Unsupported(f"{path}: nothing is at {step!r}")
