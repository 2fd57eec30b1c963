"""What the README says is so: the settings, the tree, the commands, the routes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.main import create_app
from app.problems import rows
from app.settings import Settings
from tests.repo.readme import README, with_settings

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


@pytest.mark.parametrize("package", ["app", "model"])
def test_every_file_stands_in_the_tree(package: str) -> None:
    tree = re.search(r"```text\n(.*?)```", TEXT, re.DOTALL)
    assert tree is not None
    named = set(re.findall(r"[\w-]+\.(?:py|md)", tree[1]))
    files = {p.name for p in (ROOT / package).rglob("*.py")} - {"__init__.py", "__main__.py"}
    assert files - named == set()


def test_links_inside_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target


def test_changelog_speaks_of_this_version() -> None:
    version = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"## {version[1]}" in Path(ROOT / "CHANGELOG.md").read_text()
