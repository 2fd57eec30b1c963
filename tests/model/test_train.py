"""The recipe's parts: what training never sees, views, the optimiser, and a run that is interrupted and taken up again."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.checkpoint import build_network, resolve
from model.golden import golden_of
from model.train import augment, card, data
from model.train.__main__ import main, public_arguments
from model.train.loop import Recipe, Trainer, evaluate, network, probabilities
from model.train.optimiser import Muon, orthogonalised, split_parameters

SMALL = replace(
    Recipe(), layers=(1, 1), channels=(8, 16), epochs=2, minutes=60.0, batch_size=8, sizes=((0.5, 16), (1.0, 24)), warm_up=0.25
)
CPU = torch.device("cpu")


def images(count: int, side: int = 32, seed: int = 0) -> data.Images:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(data.CLASSES)
    return data.Images(rng.integers(0, 255, (count, 3, side, side), dtype=np.uint8), labels.astype(np.int64))


def archive(path: Path, folders: dict[str, int], side: int) -> Path:
    """A zip with so many images of one colour each in every folder."""
    with zipfile.ZipFile(path, "w") as zipped:
        for number, (folder, count) in enumerate(folders.items()):
            for i in range(count):
                out = io.BytesIO()
                Image.new("RGB", (side, side), (number, i, 7)).save(out, "PNG")
                zipped.writestr(f"{folder}/{i:04}.png", out.getvalue())
    return path


def test_held_out_images_are_never_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "HELD_OUT_PER_CLASS", 3)
    source = archive(tmp_path / "cifar.zip", dict.fromkeys(data.CLASSES, 10), 32)
    training, held = data.load_cifar(source, tmp_path / "work", seed=0)
    assert training.pixels.shape == (70, 3, 32, 32)
    assert np.bincount(held.labels).tolist() == [3] * 10
    assert np.bincount(training.labels).tolist() == [7] * 10
    # Each image has one colour of its own, (class, number): none is on both sides, and labels go with their colours.
    colours = [{tuple(p[:2, 0, 0]) for p in part.pixels} for part in (training, held)]
    assert not colours[0] & colours[1]
    assert len(colours[0] | colours[1]) == 100
    assert (training.pixels[:, 0, 0, 0] == training.labels).all()
    again, held_again = data.load_cifar(source, tmp_path / "work", seed=0)  # out of the cache
    assert (again.pixels == training.pixels).all()
    assert (held_again.pixels == held.pixels).all()


def test_photographs_are_taken_by_their_wordnet_id(tmp_path: Path) -> None:
    folders = dict.fromkeys(data.WORDNET_TO_CLASS, 4) | {"n07873807": 4}  # and pizzas, which are none of the ten
    training, held = data.load_photographs(archive(tmp_path / "tiny.zip", folders, 64), tmp_path, seed=0, held_out=1)
    assert len(training.labels) == 3 * len(data.WORDNET_TO_CLASS)
    assert len(held.labels) == len(data.WORDNET_TO_CLASS)
    order = list(folders)
    assert {data.CLASSES[y] for y in held.labels} == set(data.WORDNET_TO_CLASS.values())
    for pixels, label in zip(held.pixels, held.labels, strict=True):
        assert data.WORDNET_TO_CLASS[order[pixels[0, 0, 0]]] == data.CLASSES[label]


def test_a_view_without_room_is_the_image_itself() -> None:
    still = augment.Views(scale=(1.0, 1.0), aspect=1.0, shift=0.0, colour=0.0, cutout=0.0)
    source = torch.from_numpy(images(4).pixels)
    views = augment.random_views(source, 32, still, torch.Generator().manual_seed(0))
    plain = augment.normalise(source.float() / 255)
    for view, image in zip(views, plain, strict=True):
        assert torch.allclose(view, image, atol=1e-4) or torch.allclose(view, image.flip(2), atol=1e-4)


@pytest.mark.parametrize("views", [augment.TIGHT, augment.TIGHT_FINAL, augment.LOOSE, augment.LOOSE_FINAL])
def test_views_vary_but_stay_in_range(views: augment.Views) -> None:
    source = torch.from_numpy(images(16, 64).pixels)
    out = augment.random_views(source, 24, views, torch.Generator().manual_seed(1))
    assert out.shape == (16, 3, 24, 24)
    assert out.isfinite().all()
    low, high = (augment.normalise(torch.full((1, 3, 1, 1), v)) for v in (0.0, 1.0))
    assert ((out >= low - 1e-5) & (out <= high + 1e-5)).all()
    other = augment.random_views(source, 24, views, torch.Generator().manual_seed(2))
    assert not torch.equal(out, other)


def test_orthogonalised_has_singular_values_near_one() -> None:
    matrix = torch.randn(16, 72, generator=torch.Generator().manual_seed(0))
    for m in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonalised(m, steps=5))
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_muon_keeps_the_norm_and_lowers_the_loss() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
    target = torch.randn(8, 4, 3, 3)
    target *= 8**0.5 / target.norm()
    optimiser = Muon([weight], lr=0.05)
    losses = []
    for _ in range(40):
        loss = (weight - target).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        weight.grad = None
        losses.append(loss.item())
        assert weight.norm().item() == pytest.approx(8**0.5, rel=1e-4)
    assert losses[-1] < losses[0] / 10


def test_every_parameter_is_optimised_once() -> None:
    net = network(SMALL)
    groups = split_parameters(net)
    assert sorted(id(p) for group in groups for p in group) == sorted(id(p) for p in net.parameters())
    assert all(p.ndim == 4 and p.shape[-1] == 3 for p in groups[0])


@pytest.mark.parametrize("optimiser", ["muon", "sgd"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Path, optimiser: str) -> None:
    recipe = replace(SMALL, optimiser=optimiser)
    tight, loose = images(40), images(8, 64, seed=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order, so that both runs can be equal to the bit
    try:
        whole = Trainer(recipe, tight, loose, {"held": images(10, seed=2)}, tmp_path / "whole", CPU)
        (tmp_path / "whole").mkdir()
        whole.run()
        (tmp_path / "cut").mkdir()
        first = Trainer(recipe, tight, loose, {}, tmp_path / "cut", CPU)
        first.held = {"cut": None}  # type: ignore[dict-item]  # fails after the first epoch's state is written
        with pytest.raises(AttributeError):
            first.run()
        second = Trainer(recipe, tight, loose, {}, tmp_path / "cut", CPU)
        second.run()
    finally:
        torch.set_num_threads(threads)
    assert second.epoch == whole.epoch == 2
    for name, value in whole.averaged().state_dict().items():
        assert torch.equal(value, second.averaged().state_dict()[name]), name
    other = Trainer(replace(recipe, seed=1), tight, loose, {}, tmp_path / "cut", CPU)
    with pytest.raises(SystemExit, match="another recipe"):
        other.run()


def test_a_run_out_of_time_ends_and_its_rate_is_at_its_lowest(tmp_path: Path) -> None:
    recipe = replace(SMALL, epochs=1000, minutes=0.01)
    trainer = Trainer(recipe, images(40), None, {}, tmp_path, CPU)
    trainer.run()
    assert trainer.epoch < 1000
    assert trainer.done() >= 1


def test_the_written_checkpoint_is_read_back_by_the_loading_code(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = network(SMALL).eval()
    path = tmp_path / "ten"
    card.write(path, net, SMALL, accuracy={"top1": 12.5}, training={"epochs": 2}, photographs=False)
    found = resolve(str(path.with_suffix(".safetensors")))
    assert found.variant == card.VARIANT
    assert [label.name for label in found.labels] == list(data.CLASSES)
    assert found.preprocess.size == (32, 32)
    assert found.accuracy == {"top1": 12.5}
    loaded = build_network(found)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(loaded(x), net(x), atol=2e-2)
    written = json.loads(path.with_suffix(".json").read_text())
    assert written["sha256"] == found.digest.removeprefix("sha256:")
    assert written["training"]["recipe"]["seed"] == SMALL.seed


@pytest.mark.parametrize("photographs", [True, False])
def test_the_description_names_only_what_was_trained_on(tmp_path: Path, photographs: bool) -> None:
    card.write(tmp_path / "ten", network(SMALL), SMALL, accuracy={}, training={}, photographs=photographs)
    description = json.loads((tmp_path / "ten.json").read_text())["description"]
    assert "CIFAR-10" in description
    assert ("Tiny ImageNet" in description) == photographs


def test_the_golden_image_is_the_one_known_best(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, some = network(SMALL).eval(), images(12)
    golden = card.golden(net, some, SMALL.size, CPU)
    scores = probabilities(net, some, SMALL.size, CPU)[torch.arange(12), torch.from_numpy(some.labels)]
    assert golden["score"] == pytest.approx(float(scores.max()), abs=1e-4)
    assert golden["index"] == some.labels[int(scores.argmax())]
    card.write(tmp_path / "ten", net, SMALL, accuracy={}, training={}, photographs=False, golden=golden)
    found = resolve(str(tmp_path / "ten.safetensors"))
    asked = golden_of(found.card, found.labels)
    assert asked is not None
    with Image.open(io.BytesIO(asked.image)) as picture:
        assert (np.asarray(picture).transpose(2, 0, 1) == some.pixels[int(scores.argmax())]).all()


def test_what_is_served_differs_in_its_statistics_only(tmp_path: Path) -> None:
    trainer = Trainer(SMALL, images(40), images(8, 64, seed=1), {}, tmp_path, CPU)
    averaged, served = trainer.averaged().state_dict(), trainer.served(batches=4).state_dict()
    changed = {name for name, value in averaged.items() if not torch.equal(value, served[name])}
    assert changed
    assert all("running_" in name or "num_batches" in name for name in changed)
    again = trainer.served(batches=4).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in served.items())


def test_evaluate_counts_what_is_right() -> None:
    sides = []

    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sides.append(x.shape[-1])
            return torch.nn.functional.one_hot(torch.full((len(x),), 3), 10).float()

    assert evaluate(Constant(), images(50), 32, CPU) == 0.1
    assert evaluate(Constant(), images(20, 64), 32, CPU) == 0.1
    assert evaluate(Constant(), images(20, 64), 48, CPU) == 0.1
    assert sides == [32, 32, 48]


def test_the_command_in_the_card_names_no_folder_of_this_machine() -> None:
    given = ["--cifar", "/data/x/cifar10-train.zip", "--work", "../w", "--epochs", "3", "--snapshot"]
    assert public_arguments(given) == ["--cifar", "cifar10-train.zip", "--work", "w", "--epochs", "3"]
    assert public_arguments(["--cifar=/data/x/cifar10-train.zip", "--lr=0.1"]) == ["--cifar=cifar10-train.zip", "--lr=0.1"]
    assert public_arguments(["--work", "/data/a=b/w"]) == ["--work", "w"]


def test_a_snapshot_of_no_state_leaves_the_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "HELD_OUT_PER_CLASS", 1)
    source = archive(tmp_path / "cifar.zip", dict.fromkeys(data.CLASSES, 2), 32)
    output = tmp_path / "out"
    given = ["--cifar", str(source), "--work", str(tmp_path), "--output", str(output), "--snapshot"]
    monkeypatch.setattr("sys.argv", ["train", *given])
    with pytest.raises(SystemExit):
        main()
    assert "--snapshot: there is no" in capsys.readouterr().err
    assert not list(tmp_path.glob("out.*"))
