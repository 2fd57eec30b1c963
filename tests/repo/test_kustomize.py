"""The merger in kustomize's stead: as `kubectl kustomize` 5.5 gave it where compared, and a refusal of what it lacks."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.repo.kustomize import build, content_hash
from tests.repo.strategic import Unsupported, apply_operations, merge

ROOT = Path(__file__).parents[2]
CPU = ROOT / "deploy" / "kubernetes" / "overlays" / "cpu"
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  template:
    metadata: {labels: {a: b}}
    spec:
      containers:
        - name: a
          image: one:1
          env: [{name: A, value: "1"}, {name: B, value: "2"}, {name: C, value: "3"}, {name: D, value: "4"}]
        - name: b
          image: other/one:1
        - name: c
          image: one
          envFrom: [{configMapRef: {name: m}}]
      tolerations: [{key: x, operator: Exists}]
"""
KUSTOMIZATION = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}


def overlay(folder: Path, fields: dict[str, Any], **files: str) -> Path:
    """A folder with a kustomization and files beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({**KUSTOMIZATION, **fields}), encoding="utf-8")
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def patched(patch: dict[str, Any], kind: str = "Deployment") -> dict[str, Any]:
    """The Deployment's Pod after a patch of it."""
    merged = merge(yaml.safe_load(DEPLOYMENT) | {"kind": kind}, {"spec": {"template": {"spec": patch}}})
    assert merged is not None
    pod: dict[str, Any] = merged["spec"]["template"]["spec"]
    return pod


def test_items_are_merged_by_name_and_those_of_the_patch_come_first() -> None:
    env = [{"name": "E", "value": "9"}, {"name": "C", "value": "7"}, {"name": "D", "$patch": "delete"}]
    pod = patched({"containers": [{"name": "new", "image": "i"}, {"name": "a", "env": env}]})
    assert [container["name"] for container in pod["containers"]] == ["new", "a", "b", "c"]
    assert [(v["name"], v["value"]) for v in pod["containers"][1]["env"]] == [("E", "9"), ("C", "7"), ("A", "1"), ("B", "2")]
    assert pod["containers"][1]["image"] == "one:1"


def test_a_list_without_a_key_is_replaced_and_null_takes_away() -> None:
    pod = patched({"tolerations": [{"key": "y", "operator": "Exists"}], "containers": [{"name": "a", "env": None}]})
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["y"]
    assert "env" not in pod["containers"][0]


def test_a_patch_changes_nothing_but_its_result() -> None:
    document = yaml.safe_load(DEPLOYMENT)
    before = copy.deepcopy(document)
    assert merge(document, {"spec": {"paused": True}}) != before
    assert apply_operations(document, [{"op": "add", "path": "/spec/paused", "value": True}]) != before
    assert merge(document, {"$patch": "delete"}) is None
    assert document == before


@pytest.mark.parametrize(
    "patch",
    [
        {"hostAliases": [{"ip": "127.0.0.1"}]},
        {"containers": [{"image": "i"}]},
        {"containers": [{"name": "z", "$patch": "delete"}]},
        {"containers": [{"name": "a", "$patch": "replace"}]},
        {"containers": {"name": "a"}},
        {"tolerations": [{"key": "x", "$patch": "delete"}]},
        {"tolerations": {"key": "x"}, "$retainKeys": ["tolerations"]},
        {"affinity": {"$patch": "delete"}},
    ],
)
def test_a_patch_that_is_not_understood_is_refused(patch: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        patched(patch)


def test_lists_of_unknown_kinds_are_refused() -> None:
    with pytest.raises(Unsupported, match="not known whether"):
        patched({"containers": [{"name": "a"}]}, kind="StatefulSet")


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/spec/template"},
        {"op": "replace", "path": "/spec/absent", "value": 1},
        {"op": "replace", "path": "/spec/template/spec/containers/7/image", "value": "i"},
        {"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "z"}},
        {"op": "add", "path": "spec", "value": 1},
        {"op": "replace", "path": "/kind", "value": "Other", "from": "/x"},
    ],
)
def test_an_operation_that_is_not_understood_is_refused(operation: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        apply_operations(yaml.safe_load(DEPLOYMENT), [operation])


def test_names_are_hashed_as_kustomize_hashes_them() -> None:
    data = {
        "SKNET_HOST": "0.0.0.0", "SKNET_PORT": "8000", "SKNET_GRACE_S": "10", "SKNET_DRAIN_S": "20",
        "SKNET_CACHE_DIR": "/var/cache/sknet", "SKNET_LOG_FORMAT": "json", "SKNET_DEVICE": "cpu",
    }  # fmt: skip
    assert content_hash(data) == "2tm8k8gdb6"  # by kubectl kustomize


def test_namespace_labels_images_and_generated_names(tmp_path: Path) -> None:
    base = {"resources": ["d.yaml"], "configMapGenerator": [{"name": "m", "literals": ["A=1", "B=2"]}]}
    overlay(tmp_path / "base", base, d=DEPLOYMENT)
    fields = {
        "resources": ["../base"], "namespace": "n", "labels": [{"pairs": {"x": "y"}, "includeTemplates": True}],
        "images": [{"name": "one", "newName": "registry/one", "newTag": "2"}],
        "configMapGenerator": [{"name": "m", "behavior": "merge", "literals": ["B=3"]}],
    }  # fmt: skip
    deployment, config_map = build(overlay(tmp_path / "top", fields))
    assert config_map["data"] == {"A": "1", "B": "3"}
    assert config_map["metadata"] == {"name": "m-" + content_hash({"A": "1", "B": "3"}), "namespace": "n", "labels": {"x": "y"}}
    assert deployment["metadata"] == {"name": "d", "namespace": "n", "labels": {"x": "y"}}
    assert deployment["spec"]["template"]["metadata"]["labels"] == {"a": "b", "x": "y"}
    containers = deployment["spec"]["template"]["spec"]["containers"]
    assert [container["image"] for container in containers] == ["registry/one:2", "other/one:1", "registry/one:2"]
    assert containers[2]["envFrom"][0]["configMapRef"]["name"] == config_map["metadata"]["name"]


def test_a_component_has_the_last_word(tmp_path: Path) -> None:
    component = {"kind": "Component", "apiVersion": "kustomize.config.k8s.io/v1alpha1"}
    generator = [{"name": "m", "behavior": "merge", "literals": ["A=component"]}]
    overlay(tmp_path / "c", {**component, "configMapGenerator": generator})
    overlay(tmp_path / "base", {"configMapGenerator": [{"name": "m", "literals": ["A=base"]}]})
    generator = [{"name": "m", "behavior": "merge", "literals": ["A=overlay"]}]
    fields = {"resources": ["../base"], "components": ["../c"], "configMapGenerator": generator}
    assert build(overlay(tmp_path / "top", fields))[0]["data"] == {"A": "component"}


@pytest.mark.parametrize(
    "fields",
    [
        {"namePrefix": "x-"},
        {"commonLabels": {"a": "b"}},
        {"kind": "Component"},
        {"apiVersion": "kustomize.config.k8s.io/v1"},
        {"resources": ["d.yaml", "d.yaml"]},
        {"resources": ["role.yaml"]},
        {"labels": [{"pairs": {"a": "b"}, "includeSelectors": True}]},
        {"images": [{"name": "one", "digest": "sha256:0"}]},
        {"images": [{"name": "one"}]},
        {"configMapGenerator": [{"name": "m", "files": ["d.yaml"]}]},
        {"configMapGenerator": [{"name": "m", "literals": ["A=1"], "behavior": "replace"}]},
        {"configMapGenerator": [{"name": "m", "literals": ["A=1"], "behavior": "merge"}]},
        {"configMapGenerator": [{"name": "m", "literals": ["A='1'"]}]},
        {"configMapGenerator": [{"name": "m", "literals": ["A=1", "A=2"]}]},
        {"patches": [{"patch": "{}"}]},
        {"patches": [{"path": "list.yaml"}]},
        {"patches": [{"path": "list.yaml", "target": {"kind": "Deployment", "labelSelector": "a=b"}}]},
        {"patches": [{"path": "absent.yaml"}]},
        {"patches": [{"path": "twice.yaml"}]},
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    overlay(
        tmp_path, {"resources": ["d.yaml"], **fields}, d=DEPLOYMENT, list="- {op: replace, path: /kind, value: X}",
        role="{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: r}}",
        absent="{apiVersion: apps/v1, kind: Deployment, metadata: {name: other}}",
        twice="{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {paused: true, paused: false}}",
    )  # fmt: skip
    with pytest.raises(Unsupported):
        build(tmp_path)


def test_as_a_program_it_prints_what_is_merged() -> None:
    command = [sys.executable, "-m", "tests.repo.kustomize", str(CPU)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert list(yaml.safe_load_all(printed)) == build(CPU)
