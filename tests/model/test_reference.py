"""What references mean, and the files on disk that they lead to. The hub has tests of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import reference
from model.errors import CheckpointCorrupt, CheckpointNotFound, UnknownVariant
from model.reference import Bundled, Hub, Local, Source, bundled_names, locate, parse
from model.registry import WEIGHTS


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("bundled:cifar10", Bundled("cifar10")),
        ("hf-hub:timm/skresnet18.ra_in1k", Hub("timm/skresnet18.ra_in1k")),
        ("hf-hub:me/my_net-2@v1.0", Hub("me/my_net-2", "v1.0")),
        ("hf-hub:me/net@refs/pr/1", Hub("me/net", "refs/pr/1")),
        ("skresnet34.ra_in1k", Hub("timm/skresnet34.ra_in1k", weights=WEIGHTS["skresnet34.ra_in1k"])),
        ("weights/net.pth", Local(Path("weights/net.pth"))),
    ],
)
def test_parse(text: str, meaning: reference.Reference) -> None:
    assert parse(text) == meaning


def test_a_tilde_is_home() -> None:
    assert parse("~/net") == Local(Path.home() / "net")


@pytest.mark.parametrize("text", ["hf-hub:", "hf-hub:net", "hf-hub:a/b/c", "hf-hub:a/b@", "hf-hub:a b/c", "hf-hub:a/b\n"])
def test_a_hub_reference_needs_a_repository(text: str) -> None:
    with pytest.raises(CheckpointNotFound, match="hf-hub:ORG/NAME"):
        parse(text)


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_reference(text: str) -> None:
    with pytest.raises(CheckpointNotFound, match="is empty"):
        parse(text)


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reference, "BUNDLED_FOLDER", tmp_path)
    return tmp_path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def test_bundled_needs_weights_and_card(bundled: Path) -> None:
    touch(bundled, "b.safetensors", "b.json", "a.safetensors", "a.json", "c.safetensors", "d.json")
    assert bundled_names() == ("a", "b")
    assert locate("bundled:a") == Source(bundled / "a.safetensors", card=bundled / "a.json")


@pytest.mark.parametrize("name", ["c", "", "../secret", "a.safetensors"])
def test_an_unknown_bundled_name_lists_the_known(bundled: Path, name: str) -> None:
    touch(bundled, "a.safetensors", "a.json")
    with pytest.raises(UnknownVariant, match=r"unknown bundled checkpoint .*: known are a$"):
        locate(f"bundled:{name}")


def test_no_bundled_checkpoint_at_all(bundled: Path) -> None:
    assert bundled_names() == ()
    with pytest.raises(UnknownVariant, match="known are none"):
        locate("bundled:a")


def test_a_folder_prefers_safetensors(tmp_path: Path) -> None:
    touch(tmp_path, "config.json", "pytorch_model.bin")
    assert locate(str(tmp_path)) == Source(tmp_path / "pytorch_model.bin", tmp_path / "config.json")
    touch(tmp_path, "model.safetensors")
    assert locate(str(tmp_path)) == Source(tmp_path / "model.safetensors", tmp_path / "config.json")


def test_a_folder_lacking_something(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"has no config\.json"):
        locate(str(tmp_path))
    touch(tmp_path, "config.json", "net.safetensors")
    with pytest.raises(CheckpointNotFound, match=r"has no weights: model\.safetensors or pytorch_model\.bin"):
        locate(str(tmp_path))


def test_a_file_is_described_by_what_lies_beside_it(tmp_path: Path) -> None:
    touch(tmp_path, "bare.pth", "net.safetensors", "net.json", "config.json", "model.safetensors")
    assert locate(str(tmp_path / "bare.pth")) == Source(tmp_path / "bare.pth")
    assert locate(str(tmp_path / "net.safetensors")) == Source(tmp_path / "net.safetensors", card=tmp_path / "net.json")
    assert locate(str(tmp_path / "model.safetensors")) == Source(tmp_path / "model.safetensors", tmp_path / "config.json")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    touch(tmp_path, "net.onnx")
    with pytest.raises(CheckpointCorrupt, match=r"allowed are \.safetensors, \.pth, \.pt, \.bin"):
        locate(str(tmp_path / "net.onnx"))


@pytest.mark.parametrize(
    ("text", "says"), [("x" * 300, "File name too long"), ("~nobody-of-this-name/net", "home folder of nobody")]
)
def test_a_path_that_no_disk_can_hold(text: str, says: str) -> None:
    with pytest.raises(CheckpointNotFound, match=says):
        locate(text)


@pytest.mark.parametrize("text", ["skresnet18", "no/such/folder", "no/such.safetensors", "cifar10"])
def test_what_is_not_there_is_answered_with_what_is(text: str) -> None:
    with pytest.raises(CheckpointNotFound) as caught:
        locate(text)
    for part in (repr(text), "skresnet18.ra_in1k", "bundled:NAME", "hf-hub:ORG/NAME"):
        assert part in str(caught.value)
