"""What the README says is so: the settings, the tree, the commands, the routes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from app.cli import main
from app.main import create_app
from app.problems import rows
from app.settings import Settings
from tests.repo.readme import README, python_blocks, with_settings

ROOT = README.parent
TEXT = README.read_text()


def test_settings_table_is_the_settings() -> None:
    assert with_settings(TEXT) == TEXT, "run: python -m tests.repo.readme"


def test_every_route_is_named() -> None:
    paths = set(create_app(Settings()).openapi()["paths"])
    missing = {path for path in paths if f"{path}`" not in TEXT}
    assert not missing


def test_every_problem_is_named() -> None:
    assert {row.slug for row in rows() if f"`{row.slug}`" not in TEXT} == set()


def test_every_make_target_it_uses_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"(?:`|SKNET_\S+ |^)make ([a-z-]+)", TEXT, re.MULTILINE))
    assert {"run", "test"} <= used <= targets


def tree_paths() -> set[str]:
    """The paths that the README's tree draws: two spaces a level."""
    drawn = re.search(r"```text\n(.*?)```", TEXT, re.DOTALL)
    assert drawn is not None
    folders: list[str] = []
    paths = set()
    for line in drawn[1].splitlines():
        name = line.split()[0]
        level = (len(line) - len(line.lstrip())) // 2
        folders[level:] = [name]
        paths.add("".join(folders[: level + 1]))
    return paths


@pytest.mark.parametrize("package", ["app", "model"])
def test_every_file_stands_in_the_tree(package: str) -> None:
    files = {str(p.relative_to(ROOT)) for p in (ROOT / package).rglob("*.py") if p.name not in ("__init__.py", "__main__.py")}
    drawn = {path for path in tree_paths() if path.startswith(package) and path.endswith(".py")}
    assert files == drawn


def test_python_in_the_readme_runs() -> None:
    alone, asking = python_blocks(TEXT)  # the latter run in tests/e2e/test_client.py, where there is a service
    assert alone
    assert len(asking) == 1
    for block in alone:
        exec(compile(block, "README.md", "exec"), {})


def test_commands_of_sknet_in_the_readme_exist() -> None:
    used = set(re.findall(r"^sknet ([a-z]+)", TEXT, re.MULTILINE))
    assert used == set(main.commands)
    flags = set(re.findall(r"^sknet .*?(--[a-z-]+)", TEXT, re.MULTILINE))
    known = {option for command in main.commands.values() for parameter in command.params for option in parameter.opts}
    assert flags <= known


def test_no_image_is_an_argument_of_curl() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    assert any("base64" in block for block in blocks)
    for block in blocks:  # an argument of a program has at most 128 KiB on Linux, which a photograph exceeds
        assert not re.search(r"\bcurl\b[^|]*\$\(base64", block), block


def test_no_placeholder_is_left() -> None:
    assert "@@" not in TEXT


def test_the_bundled_checkpoint_is_as_good_and_as_small_as_promised() -> None:
    card = json.loads((ROOT / "model" / "checkpoints" / "cifar10.json").read_text())
    assert card["accuracy"]["top1"] >= 89
    assert f"{card['accuracy']['top1']} %" in TEXT
    assert (ROOT / "model" / "checkpoints" / "cifar10.safetensors").stat().st_size <= 12_000_000


def test_links_inside_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target


def test_changelog_speaks_of_this_version() -> None:
    version = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"## {version[1]}" in Path(ROOT / "CHANGELOG.md").read_text()
