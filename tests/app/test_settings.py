"""Settings: where they come from, what they refuse and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest

from app.settings import (
    PREFIX,
    Settings,
    SettingsError,
    allowed,
    environment_without,
    flag,
    is_given,
    is_secret,
    load_settings,
    speaks,
    unknown_variables,
)

FIELDS = tuple(Settings.model_fields)


@pytest.mark.parametrize("field", FIELDS)
def test_every_setting_is_documented(field: str) -> None:
    description = Settings.model_fields[field].description or ""
    assert len(description) > 10
    assert description[-1] == "."
    assert allowed(field)


@pytest.mark.parametrize("field", FIELDS)
def test_every_setting_has_a_default_that_is_valid(field: str) -> None:
    default = getattr(Settings(), field)
    assert getattr(load_settings({} if default is None else {field: default}), field) == default


def test_the_limits_are_those_of_the_contract() -> None:
    settings = Settings()
    assert (settings.max_body_bytes, settings.max_batch_body_bytes) == (20_000_000, 100_000_000)
    assert (settings.max_pixels, settings.max_images, settings.deadline_s) == (50_000_000, 32, 10.0)
    assert (settings.host, settings.port, settings.top_k, settings.checkpoint) == ("127.0.0.1", 8000, 5, "bundled:cifar10")


def test_flags_over_variables_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().top_k == 5
    monkeypatch.setenv("SKNET_TOP_K", "3")
    monkeypatch.setenv("SKNET_DEADLINE_S", "2.5")
    assert (load_settings().top_k, load_settings().deadline_s) == (3, 2.5)
    assert load_settings({"top_k": "2"}).top_k == 2
    assert load_settings({"top_k": None}).top_k == 3


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in FIELDS:
        monkeypatch.setenv(PREFIX + field.upper(), "")
    assert load_settings() == Settings.model_construct(**{name: f.default for name, f in Settings.model_fields.items()})


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, tuple[str, Any]] = {
        "host": ("0.0.0.0", "0.0.0.0"), "port": ("0", 0), "keep_alive_s": ("6", 6), "drain_s": ("0", 0),
        "checkpoint": ("hf-hub:timm/x@main", "hf-hub:timm/x@main"), "variant": ("skresnet18", "skresnet18"),
        "labels_file": ("/l.txt", Path("/l.txt")), "checkpoint_sha256": ("sha256:" + "aB" * 32, "sha256:" + "aB" * 32),
        "cache_dir": ("/c", Path("/c")), "model_name": ("my.model-1", "my.model-1"), "device": ("cuda:1", "cuda:1"),
        "precision": ("bfloat16", "bfloat16"), "threads": ("4", 4), "batch_size": ("16", 16), "top_k": ("1", 1),
        "max_body_bytes": ("1", 1), "max_batch_body_bytes": ("2", 2), "max_buffered_bytes": ("3", 3), "max_pixels": ("4", 4),
        "max_images": ("5", 5), "max_queue": ("6", 6), "deadline_s": ("0.5", 0.5), "log_format": ("json", "json"),
        "log_level": ("debug", "debug"),
    }  # fmt: skip
    assert set(held) <= set(FIELDS)
    for field, (text, _) in held.items():
        monkeypatch.setenv(PREFIX + field.upper(), text)
    settings = load_settings()
    assert {field: getattr(settings, field) for field in held} == {field: value for field, (_, value) in held.items()}


@pytest.mark.parametrize(
    ("field", "value", "may"),
    [
        ("port", "70000", "a whole number from 0 to 65535"), ("port", "http", "a whole number from 0 to 65535"),
        ("top_k", "0", "a whole number from 1 to 100000"), ("top_k", "2.5", "a whole number from 1 to 100000"),
        ("deadline_s", "0", "a number above 0 to 3600"), ("deadline_s", "nan", "a number above 0 to 3600"),
        ("deadline_s", "inf", "a number above 0 to 3600"), ("max_pixels", "-1", "a whole number from 1 up"),
        ("device", "gpu", "auto, cpu, cuda, cuda:N"), ("device", "cuda:x", "auto, cpu, cuda, cuda:N"),
        ("precision", "float16", "auto, float32, bfloat16, int8"), ("log_format", "xml", "auto, json, console"),
        ("log_level", "INFO", "debug, info, warning, error"), ("checkpoint_sha256", "abc", "64 hexadecimal digits"),
        ("url_ports", "80, 70000", "ports from 1 to 65535, separated by commas"),
        ("url_ports", "65536", "ports from 1 to 65535, separated by commas"),
        ("url_ports", "0", "ports from 1 to 65535, separated by commas"),
        ("model_name", "a/b", "1 to 64 letters, digits, dots, dashes or underscores"),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_line_that_says_all(monkeypatch: pytest.MonkeyPatch, field: str, value: str, may: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({field: value})
    assert str(caught.value) == f"{flag(field)} is {value!r}: it may be {may}"
    variable = PREFIX + field.upper()
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"{variable} is {value!r}: it may be {may}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("ports", ["1", "80,443", " 8080 , 9999,10000 ", "59999,60000,64999,65000,65499,65500,65529,65530,65535"])
def test_ports_that_there_are(ports: str) -> None:
    assert load_settings({"url_ports": ports}).url_ports == ports


def test_an_empty_flag_is_a_bad_value() -> None:
    with pytest.raises(SettingsError, match="--checkpoint is ''"):
        load_settings({"checkpoint": ""})


def test_several_faults_are_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKNET_PORT", "x")
    with pytest.raises(SettingsError) as caught:
        load_settings({"top_k": "y" * 1000})
    lines = str(caught.value).splitlines()
    assert sorted(line.split(" ")[0] for line in lines) == ["--top-k", "SKNET_PORT"]
    assert all(len(line) < 300 for line in lines)


def test_settings_are_frozen() -> None:
    with pytest.raises(pydantic.ValidationError):
        setattr(Settings(), "top_k", 3)  # noqa: B010 - the type checker refuses it as well


def test_flags_are_named_like_the_variables() -> None:
    assert flag("max_body_bytes") == "--max-body-bytes"


def test_a_misspelt_variable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown_variables() == ()
    monkeypatch.setenv("SKNET_TOPK", "3")
    monkeypatch.setenv("SKNET_TOP_K", "3")
    monkeypatch.setenv("SKNET_A", "")
    monkeypatch.setenv("OTHER", "3")
    assert unknown_variables() == ("SKNET_A", "SKNET_TOPK")
    assert load_settings().top_k == 3


def test_limits_that_contradict_each_other_are_told() -> None:
    with pytest.raises(
        SettingsError, match=r"^--max-buffered-bytes is '1000': it may be a whole number from 20000000 up"
    ) as caught:
        load_settings({"max_buffered_bytes": 1000})
    assert "SKNET_MAX_BODY_BYTES" in str(caught.value)


# what platforms say


def test_a_platforms_variable_counts_where_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_given("port")
    monkeypatch.setenv("AIP_HTTP_PORT", "9001")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/v1/endpoints/1/deployedModels/2")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/v1/endpoints/1/deployedModels/2:predict")
    settings = load_settings()
    assert settings.port == 9001
    assert settings.vertex_health_route == "/v1/endpoints/1/deployedModels/2"
    assert settings.vertex_predict_route == "/v1/endpoints/1/deployedModels/2:predict"
    assert is_given("port")
    monkeypatch.setenv("SKNET_PORT", "9000")
    assert (load_settings().port, load_settings({"port": "9"}).port) == (9000, 9)
    monkeypatch.setenv("SKNET_PORT", "")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "")
    assert (load_settings().port, load_settings().vertex_health_route) == (9001, "/vertex/health")
    assert not is_given("vertex_health_route")


HEALTH = "/readyz, /healthz, /ping, or a path that is not the service's own, such as /vertex/health"


@pytest.mark.parametrize(
    ("variable", "value", "may"),
    [
        ("AIP_HTTP_PORT", "http", "a whole number from 0 to 65535"),
        ("AIP_HEALTH_ROUTE", "health", "a path such as /predict, in letters, digits and . _ ~ : @ -"),
        ("AIP_PREDICT_ROUTE", "/", "a path such as /predict, in letters, digits and . _ ~ : @ -"),
        ("AIP_PREDICT_ROUTE", "/a//b", "a path such as /predict, in letters, digits and . _ ~ : @ -"),
        ("AIP_PREDICT_ROUTE", "/{name}", "a path such as /predict, in letters, digits and . _ ~ : @ -"),
        ("AIP_PREDICT_ROUTE", "/a\n", "a path such as /predict, in letters, digits and . _ ~ : @ -"),
        ("AIP_PREDICT_ROUTE", "/classify", "a path that is not the service's own, such as /vertex/predict"),
        ("AIP_PREDICT_ROUTE", "/readyz", "a path that is not the service's own, such as /vertex/predict"),
        ("AIP_PREDICT_ROUTE", "/models/default/load", "a path that is not the service's own, such as /vertex/predict"),
        ("AIP_HEALTH_ROUTE", "/livez", HEALTH),
        ("AIP_HEALTH_ROUTE", "/ping/x", HEALTH),
        ("AIP_HEALTH_ROUTE", "/invocations", HEALTH),
        ("AIP_PREDICT_ROUTE", "/ping", "a path that is not the service's own, such as /vertex/predict"),
        ("AIP_PREDICT_ROUTE", "/invocations", "a path that is not the service's own, such as /vertex/predict"),
        ("AIP_PREDICT_ROUTE", "/hf", "a path that is not the service's own, such as /vertex/predict"),
        ("AIP_PREDICT_ROUTE", "/v2/x", "a path that is not the service's own, such as /vertex/predict"),
    ],
)
def test_a_platforms_variable_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, may: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"{variable} is {value!r}: it may be {may}"


@pytest.mark.parametrize("route", ["/ping", "/invocations", "/hf", "/v2/models/a:predict"])
def test_a_path_is_a_protocols_own_where_that_is_on(route: str) -> None:
    alone = {"dialects": "vertex", "vertex_health_route": route, "vertex_predict_route": route}
    assert load_settings(alone).vertex_predict_route == route
    with pytest.raises(SettingsError):
        load_settings({**alone, "dialects": "v2,huggingface,sagemaker,vertex"})


def test_routes_of_vertex_matter_where_it_is_spoken() -> None:
    load_settings({"vertex_health_route": "/ping"})
    load_settings({"vertex_predict_route": "/classify", "dialects": "none"})
    load_settings({"vertex_health_route": "/readyz", "vertex_predict_route": "/predict"})
    load_settings({"vertex_health_route": "/v1/x", "vertex_predict_route": "/v1/x"})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", set()),
        ("none", set()),
        (" none ", set()),
        ("v2", {"v2"}),
        (" v2 , vertex,huggingface-root", {"v2", "vertex", "huggingface-root"}),
    ],
)
def test_which_protocols_are_spoken(text: str, names: set[str]) -> None:
    assert speaks(load_settings({"dialects": text})) == names


# secrets


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKNET_API_KEYS", "a-key-of-16-characters")
    settings = load_settings()
    assert settings.api_keys is not None
    assert settings.api_keys.get_secret_value() == "a-key-of-16-characters"
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert "a-key" not in text
    with pytest.raises(SettingsError) as caught:
        load_settings({"api_keys": ["a-key-of-16-characters"]})
    assert str(caught.value) == "--api-keys is not shown here: it may be text"
    with pytest.raises(pydantic.ValidationError) as raw:
        Settings(api_keys=["a-key-of-16-characters"])
    assert "a-key" not in str(raw.value)


def test_which_settings_are_secret() -> None:
    assert [field for field in FIELDS if is_secret(field)] == ["api_keys"]


def test_an_environment_without_what_others_must_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SKNET_API_KEYS", "SKNET_TOP_K", "OTHER"):
        monkeypatch.setenv(name, "3")
    left = environment_without("api_keys", "api_keys_file")
    assert "SKNET_API_KEYS" not in left
    assert (left["SKNET_TOP_K"], left["OTHER"]) == ("3", "3")
