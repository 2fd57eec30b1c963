"""Weights files as they are found in the world: wrapped, damaged, hostile, and folders written by timm."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor

from model.checkpoint import build_network, load_state, resolve
from model.errors import CheckpointCorrupt, CheckpointNotFound, CheckpointUnsafe
from model.types import Label
from tests.model.timm_parity import randomise_statistics

HEAD = {"fc.weight": torch.arange(6.0).view(3, 2), "fc.bias": torch.ones(3)}


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


def read(file: Path) -> dict[str, Tensor]:
    return load_state(resolve(str(file), variant="skresnet18", labels_file=file.with_name("labels.txt")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\n")
    return tmp_path


@pytest.mark.parametrize(
    "content",
    [
        HEAD,
        {"state_dict": HEAD, "epoch": 3},
        {"model": HEAD, "optimizer": {"lr": 0.1}},
        {f"module.{key}": tensor for key, tensor in HEAD.items()},
        {"state_dict": {f"module.{key}": tensor for key, tensor in HEAD.items()}},
    ],
)
@pytest.mark.parametrize("modern", [True, False])
def test_pickles_are_unwrapped(folder: Path, content: dict[str, Any], modern: bool) -> None:
    torch.save(content, folder / "net.pth", _use_new_zipfile_serialization=modern)
    state = read(folder / "net.pth")
    assert state.keys() == HEAD.keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in HEAD.items())


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, torch.ones(3), {"fc.weight": torch.ones(3, 2), "epoch": 3}])
def test_pickles_without_named_tensors(folder: Path, content: object) -> None:
    torch.save(content, folder / "net.pth")
    with pytest.raises(CheckpointCorrupt, match=r"net\.pth holds no tensors by name"):
        read(folder / "net.pth")


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_a_hostile_pickle_is_refused_and_does_not_run(folder: Path, modern: bool, nested: bool) -> None:
    proof = folder / "proof"
    content: object = {"state_dict": HEAD, "extra": Hostile(proof)} if nested else Hostile(proof)
    torch.save(content, folder / "net.pth", _use_new_zipfile_serialization=modern)
    with pytest.raises(CheckpointUnsafe, match=r"net\.pth is refused: .*\((posix|os)\.system\); none of it was run"):
        read(folder / "net.pth")
    assert not proof.exists()

    torch.load(folder / "net.pth", weights_only=False)  # the payload is live: read carelessly, it does run
    assert proof.exists()


def test_a_plain_pickle_is_refused_and_does_not_run(folder: Path) -> None:
    (folder / "net.bin").write_bytes(pickle.dumps(Hostile(folder / "proof"), protocol=2))
    with pytest.raises(CheckpointUnsafe, match=r"net\.bin is refused"):
        read(folder / "net.bin")
    assert not (folder / "proof").exists()


def test_a_pickle_with_a_suffix_of_safetensors_is_never_unpickled(folder: Path) -> None:
    torch.save(Hostile(folder / "proof"), folder / "net.safetensors")
    with pytest.raises(CheckpointCorrupt, match=r"net\.safetensors is damaged, cut short, or no safetensors file"):
        read(folder / "net.safetensors")
    assert not (folder / "proof").exists()


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_damaged_files(folder: Path, name: str) -> None:
    file = folder / name
    if name == "net.pth":
        torch.save(HEAD, file)
    else:
        save_file(HEAD, file)
    whole = file.read_bytes()

    file.write_bytes(b"")
    with pytest.raises(CheckpointCorrupt, match="is empty"):
        read(file)
    for part in (10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:part])
        with pytest.raises(CheckpointCorrupt, match="is damaged"):
            read(file)


def test_a_file_damaged_between_resolving_and_reading(folder: Path) -> None:
    save_file(HEAD, folder / "net.safetensors")
    found = resolve(str(folder / "net.safetensors"), variant="skresnet18", labels_file=folder / "labels.txt")
    (folder / "net.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointCorrupt, match="is damaged"):
        load_state(found)


def test_a_text_file_in_the_place_of_weights(folder: Path) -> None:
    for name in ("net.safetensors", "net.pth"):
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")  # not fetched by git
        with pytest.raises((CheckpointCorrupt, CheckpointUnsafe), match=name):
            read(folder / name)


def test_a_folder_without_configuration_or_weights(folder: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"has no config\.json"):
        resolve(str(folder))
    with pytest.raises(CheckpointNotFound, match="neither a file or folder"):
        resolve(str(folder / "none"))


@pytest.mark.parametrize(
    ("name", "classes", "safe"),
    [("skresnet18", 1000, False), ("skresnet50d", 3, True)],
)
def test_a_folder_written_by_timm_gives_timms_logits(tmp_path: Path, name: str, classes: int, safe: bool) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=classes).eval()
    randomise_statistics(theirs)
    names = {"label_names": ["ant", "bee", "cat"]} if classes == 3 else {}
    save_for_hf(theirs, str(tmp_path), model_config=names, safe_serialization=safe)

    found = resolve(str(tmp_path))
    assert found.path.name == ("model.safetensors" if safe else "pytorch_model.bin")
    assert (found.variant, found.arguments["num_classes"], len(found.labels)) == (name, classes, classes)
    assert found.labels[0] == (Label("ant") if names else Label("tench, Tinca tinca", "n01440764"))
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        wanted, given = theirs(images), build_network(found)(images)
    assert (given - wanted).abs().max() <= 1e-6 * wanted.abs().max()
