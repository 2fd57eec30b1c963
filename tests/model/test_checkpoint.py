"""From a reference to a network: what is accepted, what is refused, and the words for it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model import hub, reference
from model.checkpoint import Checkpoint, build_network, bundled_names, load_into, load_state, resolve
from model.errors import ArchitectureError, CheckpointCorrupt, CheckpointMismatch, UnknownVariant
from model.labels import imagenet1k
from model.registry import VARIANTS, WEIGHTS
from model.sknet import build
from model.types import Label, PreprocessSpec
from tests.model.small import ARGUMENTS, tiny, write


def digest(file: Path) -> str:
    return "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def weights18() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build("skresnet18", num_classes=3).state_dict()


@pytest.fixture
def labels_file(tmp_path: Path) -> Path:
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\n")
    return tmp_path / "labels.txt"


def test_resolves_and_builds_what_was_saved(tmp_path: Path) -> None:
    file = write(tmp_path, licence="MIT", description="insects")
    found = resolve(str(file))
    assert (found.reference, found.path, found.digest) == (str(file), file, digest(file))
    assert (found.variant, found.licence, found.description) == ("sknet-tiny", "MIT", "insects")
    assert found.labels == (Label("ant"), Label("bee"), Label("cat"))
    assert found.accuracy == {"top1": 9.5}
    assert found.card["variant"] == "sknet-tiny"

    net, images = build_network(found), torch.randn(2, 3, 32, 32)
    assert not net.training
    assert torch.equal(net(images), tiny()(images))


def test_bundled_names_and_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "BUNDLED_FOLDER", tmp_path)
    file = write(tmp_path)
    assert bundled_names() == ("tiny",)
    assert resolve("bundled:tiny").path == file


def test_a_bundled_file_must_be_the_one_in_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "BUNDLED_FOLDER", tmp_path)
    file = write(tmp_path)
    write(tmp_path, sha256=digest(file))
    assert resolve("bundled:tiny").digest == digest(file)
    write(tmp_path, sha256="0" * 64)
    with pytest.raises(CheckpointCorrupt, match="not the SHA-256 in its card"):
        resolve("bundled:tiny")


def test_a_pin_is_enforced(tmp_path: Path) -> None:
    file = write(tmp_path)
    for pin in (digest(file), digest(file).removeprefix("sha256:").upper()):
        assert resolve(str(file), sha256=pin).digest == digest(file)
    with pytest.raises(CheckpointCorrupt, match="which is not the SHA-256 asked for, " + "a" * 64):
        resolve(str(file), sha256="a" * 64)
    with pytest.raises(CheckpointCorrupt, match="64 hexadecimal digits"):
        resolve(str(file), sha256="latest")


@pytest.mark.parametrize("right", [True, False])
def test_a_published_hash_is_enforced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights18: dict[str, Tensor], labels_file: Path, right: bool
) -> None:
    save_file(weights18, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "skresnet18", "num_classes": 3}')
    files = hub.HubFiles(
        tmp_path / "config.json", tmp_path / "model.safetensors", digest(tmp_path / "model.safetensors").removeprefix("sha256:")
    )
    monkeypatch.setattr(hub, "fetch", lambda *_, **__: files)
    pinned = replace(WEIGHTS["skresnet18.ra_in1k"], sha256=files.sha256 if right else "0" * 64)
    monkeypatch.setattr(reference, "WEIGHTS", MappingProxyType({pinned.name: pinned}))
    if right:
        assert resolve("skresnet18.ra_in1k", labels_file=labels_file).accuracy == {"top1": 73.020, "top5": 91.172}
    else:
        with pytest.raises(CheckpointCorrupt, match="not the published SHA-256"):
            resolve("skresnet18.ra_in1k", labels_file=labels_file)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_bare_weights_are_recognised_by_their_tensors(
    tmp_path: Path, weights18: dict[str, Tensor], labels_file: Path, suffix: str
) -> None:
    file = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        save_file(weights18, file)
    else:
        torch.save(weights18, file)
    found = resolve(str(file), labels_file=labels_file)
    assert (found.variant, found.arguments["num_classes"], found.card) == ("skresnet18", 3, {})
    state = build_network(found).state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in weights18.items())


def test_bare_safetensors_need_no_torch(tmp_path: Path, weights18: dict[str, Tensor], labels_file: Path) -> None:
    save_file(weights18, tmp_path / "net.safetensors")
    program = (
        "import sys; from pathlib import Path; from model.checkpoint import resolve; "
        "print(resolve(sys.argv[1], labels_file=Path(sys.argv[2])).variant, 'torch' in sys.modules)"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "net.safetensors"), str(labels_file)]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split() == ["skresnet18", "False"]


def test_bare_weights_may_be_told_what_they_are(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in build("sknet50").state_dict().items()}
    save_file({key: torch.zeros(shape) for key, shape in shapes.items() if key.startswith("fc.")}, tmp_path / "head.safetensors")
    found = resolve(str(tmp_path / "head.safetensors"), variant="sknet50")
    assert (found.variant, found.arguments["num_classes"]) == ("sknet50", 1000)
    assert found.labels[0] == Label("tench, Tinca tinca", "n01440764")  # 1000 classes and no names: ImageNet-1k
    with pytest.raises(UnknownVariant, match="resnet50"):
        resolve(str(tmp_path / "head.safetensors"), variant="resnet50")


def test_bare_weights_of_no_variant(tmp_path: Path) -> None:
    save_file(tiny().state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(CheckpointMismatch, match=r"fits none of skresnet18, .*config\.json"):
        resolve(str(tmp_path / "net.safetensors"))


def test_classes_without_names_are_refused(tmp_path: Path, labels_file: Path) -> None:
    file = write(tmp_path, labels=None)
    with pytest.raises(CheckpointMismatch, match="has 3 classes and no names for them: pass a labels file"):
        resolve(str(file))
    assert [label.name for label in resolve(str(file), labels_file=labels_file).labels] == ["ant", "bee", "cat"]


def test_a_labels_file_goes_before_the_checkpoints_own(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('["Ameise", "Biene", "Katze"]')
    found = resolve(str(write(tmp_path)), labels_file=tmp_path / "mine.json")
    assert found.labels[1] == Label("Biene")


def test_a_wrong_number_of_labels(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match=r"the configuration of .* has 2 labels for 3 classes"):
        resolve(str(write(tmp_path, labels=["ant", "bee"])))
    (tmp_path / "mine.txt").write_text("ant\nbee\ncat\ndog\n")
    with pytest.raises(CheckpointMismatch, match=r"mine\.txt has 4 labels for 3 classes"):
        resolve(str(write(tmp_path)), labels_file=tmp_path / "mine.txt")


def test_a_wrong_number_of_classes(tmp_path: Path) -> None:
    file = write(tmp_path, arguments={**ARGUMENTS, "num_classes": 4}, labels=["ant", "bee", "cat", "dog"])
    with pytest.raises(CheckpointMismatch, match="has 3 classes, but its configuration says 4"):
        resolve(str(file))


def test_the_variant_asked_for_must_be_the_configurations(tmp_path: Path, weights18: dict[str, Tensor]) -> None:
    save_file({"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "skresnext50_32x4d"}')
    assert resolve(str(tmp_path)).variant == "skresnext50_32x4d"
    assert resolve(str(tmp_path), variant="sknet50").variant == "sknet50"  # the same network under the paper's name
    with pytest.raises(CheckpointMismatch, match=r"asked for is skresnet50, but .* says skresnext50_32x4d"):
        resolve(str(tmp_path), variant="skresnet50")


def checkpoint(file: Path, variant: str = "skresnet18", classes: int = 3) -> Checkpoint:
    arguments = {**VARIANTS[variant].arguments, "num_classes": classes}
    found = resolve(str(write(file.parent)))
    return replace(found, reference="net", path=file, variant=variant, arguments=arguments)


def test_a_mismatch_says_how_and_what_would_fit(tmp_path: Path, weights18: dict[str, Tensor]) -> None:
    save_file(weights18, tmp_path / "net.safetensors")
    with pytest.raises(CheckpointMismatch) as caught:
        build_network(checkpoint(tmp_path / "net.safetensors", "skresnet34", classes=5))
    text = str(caught.value)
    assert text.startswith("the weights of net (skresnet34, 3 classes) do not fit the network: ")
    assert "168 missing (layer1.2.conv1.paths.0.conv.weight, " in text  # 8 blocks of 21 tensors, counters aside
    assert "2 of another shape (fc.weight is 3 x 512, not 5 x 512, fc.bias is 3, not 5)" in text
    assert text.endswith("; the file fits skresnet18 with 3 classes")


def test_a_refused_load_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    state = tiny().state_dict()
    del state["fc.bias"]
    found = resolve(str(write(tmp_path, {key: torch.zeros_like(tensor) for key, tensor in state.items()})))
    net = tiny()
    with pytest.raises(CheckpointMismatch, match=r"1 missing \(fc\.bias\)$"):
        load_into(net, found)
    assert all(torch.equal(tensor, net.state_dict()[key]) for key, tensor in state.items())


def test_batch_counters_may_be_absent_but_no_tensor_may_be_added(tmp_path: Path) -> None:
    state = tiny().state_dict()
    bare = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    assert len(bare) < len(state)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(build_network(resolve(str(write(tmp_path, bare))))(images), tiny()(images))
    with pytest.raises(CheckpointMismatch, match=r"1 unexpected \(bn9\.num_batches_tracked\)"):
        build_network(resolve(str(write(tmp_path, {**state, "bn9.num_batches_tracked": torch.tensor(1)}))))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    half = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in tiny().state_dict().items()}
    state = load_state(resolve(str(write(tmp_path, half))))
    assert {tensor.dtype for tensor in state.values()} == {torch.float32, torch.int64}
    assert torch.equal(state["fc.weight"], half["fc.weight"].float())


def test_arguments_that_make_no_network(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match="block='vast': allowed are basic, bottleneck"):
        build_network(resolve(str(write(tmp_path, arguments={**ARGUMENTS, "block": "vast"}))))
    with pytest.raises(ArchitectureError, match="layers"):
        build_network(resolve(str(write(tmp_path, arguments={**ARGUMENTS, "layers": [0, 1]}))))


def test_the_variant_asked_for_may_be_the_cards_own(tmp_path: Path) -> None:
    assert resolve(str(write(tmp_path)), variant="sknet-tiny").variant == "sknet-tiny"


def test_published_preprocessing_stands_in_for_what_the_repository_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"fc.weight": torch.zeros(1000, 512)}, tmp_path / "model.safetensors")
    files = hub.HubFiles(tmp_path / "config.json", tmp_path / "model.safetensors", "0" * 64)
    monkeypatch.setattr(hub, "fetch", lambda *_, **__: files)
    spec = PreprocessSpec(size=(288, 288), crop_pct=0.95, interpolation="bilinear")
    known = replace(WEIGHTS["skresnet18.ra_in1k"], preprocess=spec)
    monkeypatch.setattr(reference, "WEIGHTS", MappingProxyType({known.name: known}))
    files.config.write_text('{"architecture": "skresnet18"}')
    assert resolve(known.name).preprocess == spec
    files.config.write_text('{"architecture": "skresnet18", "pretrained_cfg": {"crop_pct": 1.0}}')
    assert resolve(known.name).preprocess == replace(spec, crop_pct=1.0)  # what the repository says goes before
    assert resolve(f"hf-hub:{known.repository}").preprocess == PreprocessSpec(crop_pct=1.0)


@pytest.mark.parametrize("name", WEIGHTS)
def test_published_labels_and_preprocessing_are_those_that_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    known = WEIGHTS[name]
    save_file({"fc.weight": torch.zeros(1000, 512)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(f'{{"architecture": "{known.variant}"}}')
    files = hub.HubFiles(tmp_path / "config.json", tmp_path / "model.safetensors", "0" * 64)
    monkeypatch.setattr(hub, "fetch", lambda *_, **__: files)
    found = resolve(name)
    assert known.labels == "imagenet1k"
    assert found.labels == imagenet1k()
    assert found.preprocess == known.preprocess == PreprocessSpec((224, 224), 0.875, "center", "bicubic")
