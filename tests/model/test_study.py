"""A study says what the network says: its means are those of a direct computation, over the right files."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from model.checkpoint import build_network, resolve
from model.crops import centre
from model.errors import FiguresUnavailable, ImageError
from model.manager import LoadRequest, load
from model.preprocess import prepare
from model.sknet import record_attention, units
from model.study import ALL, ClassFiles, Mean, Study, classes_of, study, write_csv
from model.study_figure import chosen_units, compose, draw, standard_error
from tests.fakes import FakeModel, fake_info
from tests.model.small import write

SCALES = (1.0, 1.5, 2.0)


def every(items: Sequence[Any], _: str) -> Iterable[Any]:
    return items


def never(path: Path, reason: str) -> None:
    raise AssertionError(f"{path}: {reason}")


def picture(path: Path, seed: int, size: tuple[int, int] = (61, 47)) -> Path:
    """Blotches of any colour and size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (3 + seed % 5, 4, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three and two images, one of which is none."""
    for i in range(3):
        picture(tmp_path / "photos" / "ants" / f"{i}.png", i)
    picture(tmp_path / "photos" / "bees" / "deep" / "3.png", 3, (90, 33))
    (tmp_path / "photos" / "bees" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "bees" / ".hidden.png").write_text("not looked at")
    (tmp_path / "photos" / ".git").mkdir()
    return tmp_path / "photos"


def direct(reference: str, files: Sequence[Path]) -> dict[tuple[str, float], np.ndarray]:
    """(unit, scale) -> (images, M): mean attention of each kernel by hooks on the network itself, in float32."""
    checkpoint = resolve(reference)
    net = build_network(checkpoint)
    found: dict[tuple[str, float], list[list[float]]] = {}
    for path in files:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
        for scale in SCALES:
            tensor = torch.from_numpy(prepare(centre(pixels, scale), checkpoint.preprocess))[None]
            with torch.inference_mode(), record_attention(net) as seen:
                net(tensor)
            for name, module, _ in units(net):
                found.setdefault((name, scale), []).append(seen[module][0].double().mean(1).tolist())
    return {key: np.array(values) for key, values in found.items()}


@pytest.mark.parametrize("small", [True, False], ids=["small", "bundled"])
def test_it_reproduces_a_direct_computation(folder: Path, tmp_path: Path, small: bool) -> None:
    reference = str(write(tmp_path, preprocess={"size": [32, 40]})) if small else "bundled:cifar10"
    # How far the other engines' attention is from this one's is held beside them.
    model = load(LoadRequest(checkpoint=reference, engine="eager", precision="float32", preprocess="exact", device="cpu"))
    skipped: list[str] = []
    try:
        result = study(model, classes_of(folder), progress=every, skipped=lambda path, _: skipped.append(path.name))
    finally:
        model.close()
    assert skipped == ["notes.txt"]
    files: dict[str | None, list[Path]] = {
        "ants": [folder / "ants" / f"{i}.png" for i in range(3)],
        "bees": [folder / "bees" / "deep" / "3.png"],
    }
    files[ALL] = files["ants"] + files["bees"]
    compared = 0
    for name, paths in files.items():
        wanted = direct(reference, paths)
        for scale in SCALES:
            for mean in result.of(name, scale):
                shares = wanted[mean.unit, scale]
                differences = shares[:, -1] - shares[:, 0]
                assert mean.images == len(paths)
                assert mean.mean_difference == pytest.approx(differences.mean(), abs=1e-6)
                assert mean.std == pytest.approx(differences.std(), abs=1e-6)
                assert mean.mean_shares == pytest.approx(shares.mean(0).tolist(), abs=1e-6)
                compared += 1
    assert compared == len(result.means) == 3 * 3 * (2 if small else 6)
    assert max(abs(mean.mean_difference) for mean in result.means) > 1e-4  # far above what was allowed
    assert result.comparable_to_paper


def files(folder: Path, **contents: Sequence[int]) -> tuple[ClassFiles, ...]:
    """Files of one byte each: the fake's attention hangs on it."""
    for name, values in contents.items():
        (folder / name).mkdir(parents=True)
        for i, value in enumerate(values):
            (folder / name / f"{i:03}").write_bytes(bytes([value]))
    return classes_of(folder)


def test_means_and_deviations_are_over_the_images(tmp_path: Path) -> None:
    result = study(FakeModel(), files(tmp_path, a=[1, 3], b=[8]), progress=every, skipped=never)
    first = {mean.class_name: mean for mean in result.means if mean.unit == "SK_2_1" and mean.scale == 2.0}
    # The fake's difference is a fiftieth of the byte.
    assert {name: mean.images for name, mean in first.items()} == {ALL: 3, "a": 2, "b": 1}
    assert first["a"].mean_difference == pytest.approx(0.04)
    assert first["a"].std == pytest.approx(0.02)
    assert first[ALL].mean_difference == pytest.approx(0.08)
    assert first[ALL].std == pytest.approx(math.sqrt((0.06**2 + 0.02**2 + 0.08**2) / 3))
    assert first["b"].std == 0
    assert standard_error(first["b"]) == 0
    assert standard_error(first["a"]) == pytest.approx(0.02)  # 0.0283 with N - 1 below, over the root of 2
    assert first["a"].mean_shares == pytest.approx((0.48, 0.52))


@pytest.mark.parametrize("streams", [1, 3])
def test_many_files_keep_their_classes_and_every_one_is_counted(tmp_path: Path, streams: int) -> None:
    classes = files(tmp_path, **{f"c{i}": [i] * 7 for i in range(9)})
    seen: list[Any] = []

    def counted(items: Sequence[Any], _: str) -> Iterable[Any]:
        for item in items:
            seen.append(item)
            yield item

    model = FakeModel(info=fake_info(streams=streams, batch_size=2))
    result = study(model, classes, progress=counted, skipped=never)
    assert len(seen) == 63
    for i, name in enumerate(result.classes):
        assert result.of(name, 1.0)[0].mean_difference == pytest.approx(i / 50)
    assert {len(batch) for batch in model.batches} == {1, 2}  # three passes in calls of two at most


def test_a_bad_file_is_said_and_skipped_and_its_class_may_vanish(tmp_path: Path) -> None:
    classes = files(tmp_path, good=[1, 2], none=[3])
    (tmp_path / "none" / "000").write_bytes(b"bad")
    (tmp_path / "good" / "000").write_bytes(b"huge")
    told: list[tuple[str, str]] = []
    result = study(FakeModel(), classes, progress=every, skipped=lambda path, reason: told.append((path.name, reason[:9])))
    assert told == [("000", "the image"), ("000", "the bytes")]
    assert result.classes == ("good",)
    assert result.of(ALL, 1.0)[0].images == 1
    (tmp_path / "good" / "001").write_bytes(b"bad")
    with pytest.raises(ImageError, match="none of 3 files"):
        study(FakeModel(), classes, progress=every, skipped=lambda *_: None)


def test_a_fault_that_is_not_the_files_ends_it(tmp_path: Path) -> None:
    classes = files(tmp_path, a=[1] * 20)
    (tmp_path / "a" / "003").write_bytes(b"bug")
    with pytest.raises(RuntimeError):
        study(FakeModel(), classes, progress=every, skipped=never)


def test_classes_are_sub_folders_or_the_folder_itself(folder: Path, tmp_path: Path) -> None:
    found = classes_of(folder)
    assert [(each.name, [path.name for path in each.files]) for each in found] == [
        ("ants", ["0.png", "1.png", "2.png"]), ("bees", ["3.png", "notes.txt"]),
    ]  # fmt: skip
    assert [each.name for each in classes_of(folder, only=["bees"])] == ["bees"]
    (alone,) = classes_of(folder / "ants")
    assert (alone.name, len(alone.files)) == ("ants", 3)
    few = classes_of(folder, limit=2)
    assert [len(each.files) for each in few] == [2, 2]
    assert few == classes_of(folder, limit=2)
    with pytest.raises(ImageError, match=r"no class 'wasps' in .*: the classes are ants, bees"):
        classes_of(folder, only=["ants", "wasps"])
    with pytest.raises(ImageError, match="is no folder"):
        classes_of(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="has no files"):
        classes_of(tmp_path / "empty")


def test_folders_are_looked_into_by_their_links(folder: Path, tmp_path: Path) -> None:
    picture(tmp_path / "pool" / "9.png", 9)
    (folder / "bees" / "more").symlink_to(tmp_path / "pool")
    (folder / "bees" / "round").symlink_to(folder)
    (folder / "wasps").symlink_to(tmp_path / "gone")
    os.mkfifo(folder / "ants" / "pipe")
    ants, bees, wasps = classes_of(folder)
    assert [path.name for path in ants.files] == ["0.png", "1.png", "2.png"]
    names = [path.relative_to(folder).as_posix() for path in bees.files]
    assert names == ["bees/deep/3.png", "bees/more/9.png", "bees/notes.txt"]
    assert (wasps.files, wasps.faults) == ((), ((f"{folder}/wasps", "No such file or directory"),))
    told: list[tuple[Path, str]] = []
    study(FakeModel(), [wasps, bees], progress=every, skipped=lambda path, why: told.append((path, why)))
    assert told[0] == (folder / "wasps", "No such file or directory")


def test_a_folder_that_cannot_be_looked_at_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="is no folder"):
        classes_of(tmp_path / ("a" * 300))

    def scandir(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", scandir)  # a test that runs as root may list everything
    with pytest.raises(ImageError, match="Permission denied"):
        classes_of(tmp_path)


def made_up(classes: int, *, names: Sequence[str] = ("SK_2_1", "SK_2_2", "SK_3_1", "SK_4_1"), comparable: bool = True) -> Study:
    """A study of as many classes; the differences are 0.01 a class and 0.001 a unit."""
    known = [f"class {i} $x$" for i in range(classes)]
    means = tuple(
        Mean(name, unit, f"layer.{u}", scale, 4, 0.001 * u + 0.01 * (c % 9) * scale, 0.02, (0.5, 0.5))
        for c, name in enumerate((ALL, *known))
        for scale in SCALES
        for u, unit in enumerate(names)
    )
    return Study(means, tuple(known), (3, 5), comparable, "a test said so", "sknet-made-up", "sha256:0123")


def test_the_csv_gives_the_numbers_back_to_the_bit() -> None:
    result = made_up(2, comparable=False)
    file = io.StringIO()
    write_csv(result, file)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert list(rows[0]) == [
        "class", "unit", "module", "scale", "images", "mean_difference", "std", "mean_share_3x3", "mean_share_5x5",
        "comparable_to_paper", "comparable_reason", "variant", "digest",
    ]  # fmt: skip
    assert len(rows) == len(result.means)
    for row, mean in zip(rows, result.means, strict=True):
        assert (row["class"], row["unit"], row["module"]) == (mean.class_name or "(all)", mean.unit, mean.module)
        assert (float(row["scale"]), int(row["images"])) == (mean.scale, mean.images)
        assert (float(row["mean_difference"]), float(row["std"])) == (mean.mean_difference, mean.std)
        assert (float(row["mean_share_3x3"]), float(row["mean_share_5x5"])) == mean.mean_shares
    assert {(row["comparable_to_paper"], row["comparable_reason"]) for row in rows} == {("false", "a test said so")}


def test_the_units_looked_at_class_by_class_are_the_papers() -> None:
    paper = [f"SK_{s}_{i}" for s, count in ((2, 3), (3, 4), (4, 6), (5, 3)) for i in range(1, count + 1)]
    assert chosen_units(made_up(2, names=paper)) == ("SK_2_3", "SK_3_4", "SK_5_3")
    assert chosen_units(made_up(2)) == ("SK_2_2", "SK_3_1", "SK_4_1")
    assert chosen_units(made_up(2, names=["SK_2_1"])) == ("SK_2_1",)


@pytest.mark.parametrize("classes", [1, 2, 12, 60])
def test_the_figure_draws_the_means(classes: int) -> None:
    result = made_up(classes)
    figure = compose(result)
    depth, *panels = figure.axes
    lines = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in depth.get_lines()}
    assert lines["as sent"] == [mean.mean_difference for mean in result.of(ALL, 1.0)]
    assert lines["centre enlarged 2.0×"] == [mean.mean_difference for mean in result.of(ALL, 2.0)]  # noqa: RUF001
    assert [axes.get_title(loc="left") for axes in panels] == (
        [] if classes == 1 else [f"{unit}, class by class" for unit in ("SK_2_2", "SK_3_1", "SK_4_1")]
    )
    for axes, unit in zip(panels, ("SK_2_2", "SK_3_1", "SK_4_1"), strict=False):
        (line,) = [line for line in axes.get_lines() if line.get_label() == "centre enlarged 1.5×"]  # noqa: RUF001
        wanted = [mean.mean_difference for name in result.classes for mean in result.of(name, 1.5) if mean.unit == unit]
        assert np.asarray(line.get_ydata()).tolist() == wanted
    assert {axes.get_ylim() for axes in figure.axes} == {(-0.25, 0.25)}
    assert draw(result).startswith(b"\x89PNG")


def test_the_figure_says_where_it_does_not_compare() -> None:
    texts = [text.get_text() for text in compose(made_up(1, comparable=False)).findobj(Text) if isinstance(text, Text)]
    assert "sknet-made-up: 4 images of 1 class; NOT comparable to the paper" in texts
    assert any("NOT comparable to the paper: a test said so." in text for text in texts)


def test_a_figure_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FiguresUnavailable):
        draw(made_up(1))
