"""Which checkpoints may be asked for over HTTP, and every disguise of those that may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import ReferenceForbidden
from app.references import allowed, same


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a checkpoint, another beside it, and links from the one to the other."""
    inside, outside = tmp_path / "models", tmp_path / "secret"
    for place in (inside / "below", outside):
        place.mkdir(parents=True)
        (place / "a.safetensors").touch()
    (inside / "a.safetensors").touch()
    (inside / "out.safetensors").symlink_to(outside / "a.safetensors")
    (inside / "away").symlink_to(outside)
    (inside / "in.safetensors").symlink_to(inside / "below" / "a.safetensors")
    (inside / "circle").symlink_to(inside / "circle")
    (inside / "carded.safetensors").touch()
    (inside / "carded.json").symlink_to(outside / "secret.json")
    (inside / "hub").mkdir()
    (inside / "hub" / "config.json").touch()
    (inside / "hub" / "model.safetensors").symlink_to(outside / "a.safetensors")
    (tmp_path / "models-too").mkdir()
    (tmp_path / "models-too" / "a.safetensors").touch()
    return inside


@pytest.mark.parametrize("reference", ["bundled:cifar10", "bundled:nothing-of-that-name", "skresnet18.ra_in1k"])
@pytest.mark.parametrize("with_folder", [True, False])
def test_names_are_taken_as_they_are(folder: Path, reference: str, with_folder: bool) -> None:
    assert allowed(reference, folder if with_folder else None) == reference


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("a.safetensors", "a.safetensors"),
        ("./a.safetensors", "a.safetensors"),
        ("below/a.safetensors", "below/a.safetensors"),
        ("below", "below"),
        ("in.safetensors", "below/a.safetensors"),  # the real path, so that the link may change meanwhile
        ("missing.safetensors", "missing.safetensors"),  # what is not there is for the loader to say
        ("~/a.safetensors", "~/a.safetensors"),  # a folder of that name
    ],
)
def test_files_inside_are_named_from_the_folder(folder: Path, reference: str, found: str) -> None:
    assert allowed(reference, folder) == str(folder.resolve() / found)


def test_an_absolute_path_may_lead_inside_also_by_a_link_to_the_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    real = str(folder.resolve() / "a.safetensors")
    assert allowed(str(folder / "a.safetensors"), folder) == real
    assert allowed("a.safetensors", tmp_path / "link") == real
    assert allowed(str(tmp_path / "link" / "a.safetensors"), folder) == real


@pytest.mark.parametrize(
    "reference",
    [
        "/etc/passwd",
        "../secret/a.safetensors",
        "below/../../secret/a.safetensors",
        "below/../a.safetensors",
        "..",
        ".",
        "",
        " ",
        "/",
        "out.safetensors",
        "away/a.safetensors",
        "away",
        "circle",
        "carded.safetensors",
        "hub",
        "a.safetensors\0.png",
        "\ud800",
        "x" * 5000,
        "hf-hub:timm/skresnet18.ra_in1k",
        "HF-HUB:timm/skresnet18.ra_in1k",
        "http://127.0.0.1/a.safetensors",
        "https://example.org/a.safetensors",
        "file:///etc/passwd",
        "bundled:../../secret/a",
        "skresnet18.ra_in1k/../../secret/a.safetensors",
    ],
)
def test_everything_else_is_refused(folder: Path, reference: str) -> None:
    with pytest.raises(ReferenceForbidden) as caught:
        allowed(reference, folder)
    assert caught.value.allowed[0] == "bundled:NAME"
    assert "secret" not in "".join(caught.value.allowed)


def test_a_neighbour_whose_name_begins_alike_is_outside(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ReferenceForbidden):
        allowed(str(tmp_path / "models-too" / "a.safetensors"), folder)


@pytest.mark.parametrize("reference", ["a.safetensors", "/etc/passwd", "cifar10"])
def test_without_a_folder_there_are_no_files(reference: str) -> None:
    with pytest.raises(ReferenceForbidden, match="SKNET_MODEL_DIR is not set"):
        allowed(reference, None)


def test_the_configured_checkpoint_is_known_by_any_of_its_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = allowed("in.safetensors", folder)
    assert same(real, str(folder / "in.safetensors"))
    monkeypatch.chdir(folder)
    assert same(real, "below/a.safetensors")
    assert same("bundled:cifar10", "bundled:cifar10")
    assert not same(real, "a.safetensors")
    assert not same("bundled:cifar10", "~nobody-of-that-name/x")
