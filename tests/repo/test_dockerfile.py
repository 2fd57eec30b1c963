"""Dockerfile and .dockerignore, read as text: what can be seen without building. `make container-test` builds and runs it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from app.cli import AS_SERVE_PORT
from app.settings import Settings

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """Instruction and argument of each, comments dropped and continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.M)
    text = re.sub(r"\\\n\s*", " ", text)
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


INSTRUCTIONS = instructions()
STAGES = [index for index, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM"]
NAMES = {rest.split()[2]: i for i in STAGES for rest in [INSTRUCTIONS[i][1]] if " AS " in rest}


def image(start: int) -> list[tuple[str, str]]:
    """A stage's instructions behind those of the stages that it is built on, down to the base."""
    end = next((i for i in STAGES if i > start), len(INSTRUCTIONS))
    parent = NAMES.get(INSTRUCTIONS[start][1].split()[0])
    return ([] if parent is None else image(parent)) + INSTRUCTIONS[start:end]


FINAL = image(STAGES[-1])
ORDINARY = image(NAMES["ordinary"])
GPU = image(NAMES["gpu"])
SLIM = image(NAMES["slim"])


def last(word: str) -> str:
    """The final stage's last instruction of this kind: the one that counts."""
    return [rest for name, rest in FINAL if name == word][-1]


def environment(stage: list[tuple[str, str]] = FINAL) -> dict[str, str]:
    return dict(re.findall(r"([A-Z_]+)=(\S+)", " ".join(rest for word, rest in stage if word == "ENV")))


def test_every_stage_starts_from_the_base_argument() -> None:
    assert INSTRUCTIONS[0] == ("ARG", "BASE=python:3.13-slim")
    assert len(STAGES) >= 2
    for index in STAGES:
        start = INSTRUCTIONS[index][1].split()[0]
        assert start == "${BASE}" or NAMES[start] < index
        assert image(index)[0][1].split()[0] == "${BASE}"


def test_slim_is_the_same_but_for_its_environment() -> None:
    different = [a for a, b in zip(ORDINARY, SLIM, strict=True) if a != b]
    assert [word for word, _ in different] == ["FROM", "COPY"]
    assert ("COPY", "--from=slim-dependencies /opt/venv /opt/venv") in SLIM
    light = [rest for word, rest in image(NAMES["slim-dependencies"]) if word == "RUN"]
    assert not [rest for rest in light if "--requirement torch.lock" in rest]


def test_without_a_target_the_ordinary_image_is_built_and_it_has_no_compiler() -> None:
    assert [*ORDINARY, ("FROM", "ordinary")] == FINAL
    assert not [rest for word, rest in FINAL + SLIM if word == "RUN" and "apt-get" in rest]


def test_the_image_for_a_gpu_can_compile_and_run_what_it_compiled() -> None:
    """What `model.engines.inductor.check` asks for on a GPU, which can be tried only where an image is built."""
    assert GPU[: len(ORDINARY)] == ORDINARY
    more = GPU[len(ORDINARY) :]
    assert [word for word, _ in more] == ["FROM", "USER", "RUN", "ENV", "USER"]
    assert more[-1] == ("USER", last("USER"))  # installs as root, runs as the others do
    (command,) = (rest for word, rest in more if word == "RUN")
    compiler, headers = re.findall(r"apt-get install --yes --no-install-recommends ([^&;]+)", command)
    assert compiler.split() == ["gcc", "libc6-dev"]
    assert "/Python.h" in command.partition(headers)[0]  # only a base without them needs the package
    added = {key: value for key, value in environment(GPU).items() if key not in environment()}
    assert set(added) == {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
    # The volume, which may be written and is not mounted noexec as /tmp is; in the folder whose owner is checked.
    assert all(Path(last("VOLUME")) in Path(value).parents for value in added.values())
    assert Path(added["TORCHINDUCTOR_CACHE_DIR"]) in Path(added["TRITON_CACHE_DIR"]).parents


def test_it_runs_as_a_fixed_user_that_is_not_root() -> None:
    user, _, group = last("USER").partition(":")
    assert int(user) >= 1000
    assert int(group) >= 1000
    words = [word for word, _ in FINAL]
    assert not {"RUN", "COPY", "ADD"} & set(words[words.index("USER") :])  # so that the user owns nothing it runs


def test_it_starts_the_service_and_stops_on_sigterm() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["sknet", "--in-image"]
    assert json.loads(last("CMD")) == []
    assert last("STOPSIGNAL") == "SIGTERM"


def test_it_checks_its_health_by_the_command_line() -> None:
    assert json.loads(last("HEALTHCHECK").partition(" CMD ")[2]) == ["sknet", "--in-image", "health"]


def test_it_listens_for_the_outside_and_writes_only_to_the_volume() -> None:
    settings = environment()
    assert settings["SKNET_HOST"] == "0.0.0.0"
    assert "SKNET_PORT" not in settings  # it would count for more than a platform's own variable
    assert last("EXPOSE").split() == [str(Settings.model_fields["port"].default), str(AS_SERVE_PORT)]
    assert settings["SKNET_CACHE_DIR"] == settings["HOME"] == last("VOLUME")
    assert settings["PYTHONDONTWRITEBYTECODE"] == "1"


def test_its_settings_are_settings() -> None:
    names = {name.removeprefix("SKNET_").lower() for name in environment() if name.startswith("SKNET_")}
    assert names <= set(Settings.model_fields)


def test_every_install_is_hashed_but_from_the_index_that_the_user_names() -> None:
    runs = [command for word, rest in INSTRUCTIONS if word == "RUN" for command in re.split(r"&&|;|\belse\b", rest)]
    installs = [command for command in runs if "pip install" in command]
    assert len(installs) == 5
    unhashed = [command for command in installs if "--require-hashes" not in command]
    assert len(unhashed) == 2
    assert sum('--index-url "${TORCH_INDEX}"' in command for command in unhashed) == 1
    assert sum(command.rstrip().endswith(".") or " . " in command for command in unhashed) == 1  # this package itself
    assert all("--no-deps" in command for command in installs)


def test_the_lock_is_split_into_torch_and_the_rest(tmp_path: Path) -> None:
    program = next(match[1] for _, rest in INSTRUCTIONS if (match := re.search(r"awk '([^']*torch\.lock[^']*)'", rest)))
    subprocess.run(["awk", program, ROOT / "requirements.lock"], cwd=tmp_path, check=True, timeout=30)
    heavy, rest = ((tmp_path / f"{name}.lock").read_text(encoding="utf-8") for name in ("torch", "rest"))

    def names(text: str) -> set[str]:
        return set(re.findall(r"^([a-z][a-z0-9._-]*)==", text, re.M))

    assert {"torch", "torchvision", "triton"} <= names(heavy)
    assert not [name for name in names(rest) if name.startswith(("nvidia", "cuda", "torch", "triton"))]
    assert {"fastapi", "numpy", "setuptools"} <= names(rest)
    assert sorted((heavy + rest).splitlines()) == sorted(line for line in LOCK.splitlines() if not line.startswith("#"))


def test_only_what_is_copied_is_sent_to_the_builder() -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    copies = [rest.split()[:-1] for word, rest in INSTRUCTIONS if word == "COPY" and "--from" not in rest]
    copied = {source.removeprefix("./") for sources in copies for source in sources}
    assert {pattern[1:] for pattern in patterns if pattern[0] == "!"} == copied
    assert all((ROOT / source).exists() for source in copied)


@pytest.mark.parametrize("name", ["Dockerfile", "docker-compose.yml", ".dockerignore", "deploy/container-test.sh"])
def test_no_registry_host_and_no_secret_is_named(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.findall(r"https?://(?!127\.0\.0\.)[^\s\"']+", text)
    assert not re.findall(r"\b(?:[a-z0-9-]+\.)+(?:io|org|com|net|dev)\b(?!\.)", text)
    assert not re.findall(r"(?i)\b\w*(?:password|passwd|secret|api_?key|token)\w*\s*[=:]", text)


@pytest.mark.parametrize("syntax", [r"^# syntax=", r"RUN --mount", r"<<-?\s*['\"]?EOF", r"--link\b", r"COPY --exclude"])
def test_no_syntax_that_only_one_builder_knows(syntax: str) -> None:
    assert not re.search(syntax, (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M)


def test_the_container_test_is_a_valid_script() -> None:
    script = ROOT / "deploy" / "container-test.sh"
    subprocess.run(["bash", "-n", script], check=True, timeout=30)
    assert "deploy/container-test.sh" in (ROOT / "Makefile").read_text(encoding="utf-8")
