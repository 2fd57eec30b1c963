"""docker-compose.yml: valid by the Compose specification's schema, and as locked down as the README says.

It starts no container: `make container-test` does that with the image.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).parent / "compose-spec" / "compose-spec.json"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def interpolate(value: Any, variables: dict[str, str] | None = None) -> Any:
    """`${NAME:-default}` everywhere in a document, as Compose replaces it when only `variables` are set."""
    given = variables or {}
    if isinstance(value, dict):
        return {key: interpolate(item, given) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, given) for item in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: given.get(match[1]) or match[2], value)
    return value


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def document() -> dict[str, Any]:
    loaded = interpolate(yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(params=["sknet", "sknet-gpu"])
def service(request: pytest.FixtureRequest, document: dict[str, Any]) -> dict[str, Any]:
    found = document["services"][request.param]
    assert isinstance(found, dict)
    return found


def test_the_file_is_valid_compose(validator: jsonschema.Draft202012Validator, document: dict[str, Any]) -> None:
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("read_onyl", True), ("cap_drop", "ALL"), ("ports", {"8000": 8000}), ("healthcheck", {"test": 1}), ("restart", 3)],
)
def test_the_schema_would_notice(
    validator: jsonschema.Draft202012Validator, document: dict[str, Any], key: str, value: object
) -> None:
    document["services"]["sknet"][key] = value
    assert not validator.is_valid(document)


def test_without_a_profile_only_the_cpu_service_starts(document: dict[str, Any]) -> None:
    services = document["services"]
    assert [name for name, service in services.items() if not service.get("profiles")] == ["sknet"]
    assert [name for name, service in services.items() if "gpu" in service.get("profiles", [])] == ["sknet-gpu"]
    assert services["sknet"]["environment"]["SKNET_DEVICE"] == "cpu"


def test_it_serves_on_port_8000_and_both_can_run(document: dict[str, Any]) -> None:
    published = {name: document["services"][name]["ports"] for name in ("sknet", "sknet-gpu")}
    assert published == {"sknet": ["8000:8000"], "sknet-gpu": ["8001:8000"]}
    assert re.search(r"^EXPOSE 8000\b", DOCKERFILE, re.M)
    assert not [name for name in ("sknet", "sknet-gpu") if "command" in document["services"][name]]  # it runs as it is: on 8000


def test_the_port_can_be_moved_to_loopback() -> None:
    raw = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert interpolate(raw, {"PUBLISH": "127.0.0.1:9000"})["services"]["sknet"]["ports"] == ["127.0.0.1:9000:8000"]


def test_the_gpu_service_reserves_a_gpu_and_has_cuda(document: dict[str, Any]) -> None:
    gpu = document["services"]["sknet-gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert gpu["environment"]["SKNET_DEVICE"] == "cuda"
    assert gpu["build"]["args"]["TORCH_INDEX"] == ""  # the CPU index has no CUDA, whatever the shell says
    assert gpu["image"] != document["services"]["sknet"]["image"]
    assert gpu["build"]["target"] == "gpu"  # with a compiler: tests/repo/test_dockerfile.py
    assert re.search(r"^FROM \S+ AS gpu$", DOCKERFILE, re.M)
    assert "target" not in document["services"]["sknet"]["build"]


def test_nothing_is_writable_but_tmp_and_the_cache(document: dict[str, Any], service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert [entry.partition(":")[0] for entry in service["tmpfs"]] == ["/tmp"]
    assert service["volumes"] == ["cache:/var/cache/sknet"]
    assert "cache" in document["volumes"]
    assert re.search(r"^VOLUME /var/cache/sknet$", DOCKERFILE, re.M)


def test_nothing_is_allowed_that_is_not_needed(service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "user", "devices"} & set(service)


def test_the_readmes_way_of_giving_keys_is_valid(validator: jsonschema.Draft202012Validator, document: dict[str, Any]) -> None:
    from app.settings import Settings

    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    override = yaml.safe_load(block)
    assert list(validator.iter_errors(override)) == []
    (name,) = override["secrets"]
    assert set(override["services"]) <= set(document["services"])
    for service in override["services"].values():
        assert service["secrets"] == [name]
        assert service["environment"] == {"SKNET_API_KEYS_FILE": f"/run/secrets/{name}"}
    assert "api_keys_file" in Settings.model_fields


@pytest.fixture(params=["prometheus", "grafana"])
def monitor(request: pytest.FixtureRequest, document: dict[str, Any]) -> dict[str, Any]:
    found = document["services"][request.param]
    assert isinstance(found, dict)
    return found


def test_monitoring_is_asked_for_pinned_and_seen_from_this_machine_only(monitor: dict[str, Any]) -> None:
    assert monitor["profiles"] == ["monitoring"]
    assert re.search(r":v?\d+\.\d+\.\d+$", monitor["image"])
    assert all(port.startswith("127.0.0.1:") for port in monitor["ports"])


def test_monitoring_is_locked_down_and_mounts_what_there_is(monitor: dict[str, Any], document: dict[str, Any]) -> None:
    assert monitor["read_only"] is True
    test_nothing_is_allowed_that_is_not_needed(monitor)
    test_limits_are_set(monitor)
    for mount in monitor["volumes"]:
        source, _, rest = mount.partition(":")
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert rest.endswith(":ro")
        else:
            assert source in document["volumes"]
            assert source != "cache"


def test_limits_are_set(service: dict[str, Any]) -> None:
    limits = service["deploy"]["resources"]["limits"]
    assert float(limits["cpus"]) > 0
    assert re.fullmatch(r"[1-9]\d*g", limits["memory"])
    assert 64 <= limits["pids"] <= 4096


def test_the_health_check_is_the_images_own(service: dict[str, Any]) -> None:
    assert service["healthcheck"]["test"] == ["CMD", "sknet", "--in-image", "health"]
    assert 'CMD ["sknet", "--in-image", "health"]' in DOCKERFILE


def test_requests_may_finish_before_the_kill(service: dict[str, Any]) -> None:
    from app.settings import Settings  # here: the file's other tests hold without the package

    assert int(service["stop_grace_period"].removesuffix("s")) > Settings.model_fields["drain_s"].default


def test_settings_are_settings(service: dict[str, Any]) -> None:
    from app.settings import Settings

    unknown = {name for name in service["environment"] if name.removeprefix("SKNET_").lower() not in Settings.model_fields}
    assert unknown == set()
