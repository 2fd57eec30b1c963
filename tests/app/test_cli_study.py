"""`sknet study`: the files that it writes, what it prints, and how it says no."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from app.cli import main
from app.settings import Settings
from tests.fakes import FakeModel


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["study", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes; the fake's difference is a fiftieth of a file's first byte."""
    for name, values in (("ants", (1, 3)), ("bees", (8,))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for value in values:
            (tmp_path / "photos" / name / f"{value}.jpg").write_bytes(bytes([value]))
    return tmp_path / "photos"


@dataclass
class Watched(FakeModel):
    """Also knows how the settings asked for the pixels."""

    asked: list[str] = field(default_factory=list)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Watched:
    model = Watched()

    def load(settings: Settings) -> Watched:
        model.asked.append(settings.preprocess)
        return model

    monkeypatch.setattr("app.main.load_model", load)
    return model


def test_the_table_the_csv_and_the_figure(folder: Path, fake: Watched, tmp_path: Path) -> None:
    numbers, figure = tmp_path / "study.csv", tmp_path / "study.png"
    result = run("--images", str(folder), "--csv", str(numbers), "--figure", str(figure))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "mean attention difference over 3 images of 2 classes",
        "UNIT    1.0x     1.5x     2.0x",
        "SK_2_1  +0.0800  +0.0800  +0.0800",
        "SK_3_1  +0.0800  +0.0800  +0.0800",
        "comparable to the paper: a test said so",
    ]
    rows = list(csv.DictReader(io.StringIO(numbers.read_text())))
    assert [row["class"] for row in rows[::6]] == ["(all)", "ants", "bees"]
    assert len(rows) == 3 * 3 * 2
    assert float(rows[6]["mean_difference"]) == pytest.approx(0.04)
    with Image.open(figure) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[1] == 1200
    assert (pixels < 128).any()
    assert fake.asked == ["exact"]
    assert fake.closed


def test_no_photograph_is_written_over(folder: Path, fake: Watched) -> None:
    (folder / "ants" / "1.jpg").rename(folder / "ants" / "1.png")
    for option in ("--csv", "--figure"):
        file = folder / "ants" / "1.png"
        result = run("--images", str(folder), option, str(file))
        assert (result.exit_code, f"{option}: {file}: this is one of the files to be read" in result.stderr) == (2, True)
        assert file.read_bytes() == b"\1"


def test_the_csv_alone_on_standard_output(folder: Path, fake: Watched) -> None:
    result = run("--images", str(folder), "--csv", "-", "--classes", "bees, ants", "--limit", "1")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {(row["class"], row["images"]) for row in rows} == {("(all)", "2"), ("ants", "1"), ("bees", "1")}


def test_a_bad_file_is_said(folder: Path, fake: Watched) -> None:
    (folder / "ants" / "notes.txt").write_bytes(b"bad")
    result = run("--images", str(folder))
    assert result.exit_code == 0
    assert result.stderr == f"{folder / 'ants' / 'notes.txt'}: skipped: the bytes are no image\n"
    assert result.stdout.startswith("mean attention difference over 3 images of 2 classes\n")


def test_a_folder_named_as_the_total_is_a_class_like_others(folder: Path, fake: Watched, tmp_path: Path) -> None:
    (folder / "ants").rename(folder / "(all)")
    figure = tmp_path / "study.png"
    result = run("--images", str(folder), "--csv", "-", "--figure", str(figure))
    rows = list(csv.DictReader(io.StringIO(result.stdout)))[::6]
    assert [(row["class"], row["images"]) for row in rows] == [("(all)", "3"), ("./(all)", "2"), ("bees", "1")]
    assert [float(row["mean_difference"]) for row in rows] == pytest.approx([0.08, 0.04, 0.16])
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_files_beside_the_folders_are_counted_aloud(folder: Path, fake: Watched) -> None:
    for name in ("stray.jpg", ".hidden"):
        (folder / name).write_bytes(b"\x01")
    assert run("--images", str(folder)).stderr == f"{folder}: 1 file beside its folders left out, in no class\n"
    (folder / "more.jpg").write_bytes(b"\x01")
    assert "2 files beside its folders" in run("--images", str(folder)).stderr
    assert run("--images", str(folder / "ants")).stderr == ""


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 2, "Missing option '--images'"),
        (["--images", "no/such/folder"], 1, "no/such/folder is no folder"),
        (["--images", "{folder}", "--classes", "wasps"], 1, "there is no class 'wasps'"),
        (["--images", "{folder}", "--figure", "study.gif"], 2, "study.gif: the name may end in .png, .svg or .pdf"),
        (["--images", "{folder}", "--csv", "no/such/folder/study.csv"], 1, "no/such/folder/study.csv: No such file or directory"),
        (["--images", "{folder}", "--limit", "0"], 2, "0 is not in the range"),
        (["--images", "{folder}", "--preprocess", "fast"], 2, "No such option"),
        (["--images", "{folder}", "--threads", "many"], 2, "--threads is 'many'"),
    ],
)
def test_errors_are_one_line(folder: Path, fake: Watched, arguments: list[str], status: int, says: str) -> None:
    result = run(*(argument.format(folder=folder) for argument in arguments))
    assert result.exit_code == status, result.output
    assert says in result.stderr.splitlines()[-1]


def test_a_missing_library_is_said_before_the_work(folder: Path, fake: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("--images", str(folder), "--figure", "study.png")
    assert (result.exit_code, "sknet-serve[figures]" in result.stderr) == (1, True)
    assert fake.prepared == []
