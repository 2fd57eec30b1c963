"""The command line: tables, JSON, exit codes, and errors of one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from app.cli import main
from app.settings import Settings, flag
from model.registry import VARIANTS, WEIGHTS


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), env=env)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    Image.effect_noise((50, 40), 60).save(path)
    return path


def test_without_a_command_it_helps() -> None:
    result = run()
    assert all(name in result.output for name in ("serve", "classify", "models", "calibrate", "export", "health", "openapi"))


def test_serve_has_a_flag_for_every_setting_but_secrets() -> None:
    words = set(run("serve", "--help").output.split())
    assert {flag(name) for name in Settings.model_fields} - words == {"--api-keys"}
    assert run("serve", "--api-keys", "a-key-of-16-chars").exit_code == 2


def test_keys_of_the_environment_are_not_shown() -> None:
    env = {"SKNET_API_KEYS": "a-key-of-16-chars"}
    for arguments in (["serve", "--help"], ["openapi"], ["classify", "x.jpg", "--threads", "-1"], ["serve", "--port", "x"]):
        assert "a-key-of-16-chars" not in run(*arguments, env=env).output


@pytest.mark.parametrize("keys", ["short", ",", "a:b:c", "a:predict:sha256:12", "0123456789abcdef,0123456789abcdef"])
def test_keys_that_cannot_be_used_are_one_line_that_does_not_show_them(keys: str) -> None:
    result = run("serve", env={"SKNET_API_KEYS": keys})
    assert result.exit_code == 2
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: SKNET_API_KEYS")
    assert not any(part in line for part in keys.split(",") if len(part) > 3)


def test_classify_prints_a_table(picture: Path) -> None:
    result = run("classify", str(picture), "--top-k", "3")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].split()[0] == str(picture)
    assert [float(line.split()[-1]) for line in lines] == sorted((float(line.split()[-1]) for line in lines), reverse=True)


def test_classify_many_as_json_says_what_failed(picture: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    missing = tmp_path / "missing.jpg"
    result = run("classify", "--json", str(picture), str(broken), str(missing), str(picture))
    assert result.exit_code == 1
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [entry["file"] for entry in found] == [str(picture)] * 2
    assert found[0]["image"] == {"width": 50, "height": 40, "format": "PNG"}
    assert found[0]["predictions"][0]["score"] >= found[0]["predictions"][1]["score"]
    errors = result.stderr.splitlines()
    assert errors[0].startswith(f"{broken}: ")
    assert errors[1] == f"{missing}: No such file or directory"
    assert errors[-1] == "Error: 2 of 4 images could not be classified"


@pytest.mark.parametrize(
    ("arguments", "env", "status", "says"),
    [
        (["classify", "x.jpg", "--checkpoint", "bundled:nope"], {}, 1, "nope"),
        (["classify", "x.jpg", "--threads", "-1"], {}, 2, "--threads is '-1': it may be a whole number from 0 to 1024"),
        (["classify", "x.jpg"], {"SKNET_DEVICE": "tpu"}, 2, "SKNET_DEVICE is 'tpu': it may be auto, cpu, cuda, cuda:N"),
        (["classify"], {}, 2, "Missing argument"),
        (["health", "--url", "http://127.0.0.1:9"], {}, 1, "no SKNet service answers at http://127.0.0.1:9"),
        (["health", "--url", "not an address"], {}, 1, "no SKNet service answers"),
    ],
)
def test_errors_are_one_line(arguments: list[str], env: dict[str, str], status: int, says: str) -> None:
    result = run(*arguments, env=env)
    assert result.exit_code == status
    assert says in result.stderr.splitlines()[-1]


def test_models_lists_what_there_is() -> None:
    text = run("models").output
    assert "cifar10" in text
    assert all(name in text for name in (*VARIANTS, *WEIGHTS))
    listed = json.loads(run("models", "--json").output)
    assert [v["name"] for v in listed["variants"]] == list(VARIANTS)
    assert listed["bundled"] == ["cifar10"]
    assert listed["weights"][0]["sha256"] is None


def test_openapi_prints_the_document() -> None:
    document = json.loads(run("openapi").output)
    assert "/classify" in document["paths"]
