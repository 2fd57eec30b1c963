"""`sknet evaluate`: folders named by class, figures, forms, pictures, and what is refused."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from app.cli import main
from app.evaluations import CSV_FIELDS
from model.types import Label
from tests.fakes import FakeModel, fake_info

# Class folder -> what the fake says of each image in it: ant 0, bee 1 (n00000001), cat 2, dog 3, elk 4, fox 5, gnu 6.
FOLDERS = {"Ant": (0, 0, 0, 1), "n00000001": (1, 1), "2": (3, 3, 4, 2, 2)}


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeModel:
    fake = FakeModel()
    monkeypatch.setattr("app.main.load_model", lambda _: fake)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "set", FOLDERS)
    return fake


def write(root: Path, folders: dict[str, tuple[int, ...]]) -> None:
    for folder, firsts in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i, first in enumerate(firsts):
            (root / folder / f"{i}.jpg").write_bytes(bytes([first]))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["evaluate", *arguments], prog_name="sknet")


def test_a_table_by_class(model: FakeModel) -> None:
    result = run("set")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "bundled:fake (skfake), in this process: fake, fake, fake"
    assert lines[1] == "11 images of 3 classes"
    assert lines[3] == "top-1   63.64 %  (7 of 11; 95 % interval 35.38 to 84.83)"
    assert lines[4].startswith("top-5   63.64 %  (7 of 11;")  # the fake ranks upwards from the first: 1 after 0, never before
    assert [line.split() for line in lines[6:]] == [
        ["CLASS", "IMAGES", "TOP-1", "TOP-5", "MOST", "OFTEN", "TAKEN", "FOR"],
        ["ant", "4", "75.00", "75.00", "bee", "(1)"],
        ["bee", "2", "100.00", "100.00", "-"],
        ["cat", "5", "40.00", "40.00", "dog", "(2)"],
    ]
    assert model.closed


def test_json() -> None:
    told = json.loads(run("set", "--json").stdout)
    assert told["checkpoint"] == "bundled:fake"
    assert (told["images"], told["failed"], told["skipped_folders"], told["k"]) == (11, 0, [], 5)
    assert told["top_1"]["hits"] == 7
    assert told["top_1"]["low"] < told["top_1"]["share"] == 7 / 11 < told["top_1"]["high"]
    assert [(each["index"], each["label"], each["wnid"], each["images"]) for each in told["classes"]] == [
        (0, "ant", None, 4), (1, "bee", "n00000001", 2), (2, "cat", None, 5),
    ]  # fmt: skip
    assert told["classes"][2]["taken_for"] == {"index": 3, "label": "dog", "images": 2}
    assert told["classes"][1]["taken_for"] is None


def test_no_image_is_written_over(tmp_path: Path) -> None:
    with zipfile.ZipFile("set.zip", "w") as archive:
        archive.write("set/2/0.jpg", "2/0.jpg")
    whole = Path("set.zip").read_bytes()
    (tmp_path / "image.png").symlink_to("set/2/0.jpg")
    for folder, option, file in (
        ("set", "-o", "set/2/0.jpg"), ("set", "--confusion", "image.png"), ("set.zip", "-o", "set.zip"),
    ):  # fmt: skip
        result = run(folder, option, file)
        name = option.replace("-o", "--output")
        assert (result.exit_code, f"{name}: {file}: this is one of the files to be read" in result.stderr) == (2, True)
    assert (Path("set/2/0.jpg").read_bytes(), Path("set.zip").read_bytes()) == (b"\3", whole)


def test_csv_has_a_row_an_image(tmp_path: Path) -> None:
    (tmp_path / "set" / "Ant" / "bad.jpg").write_bytes(b"bad")
    (tmp_path / "set" / "Ant" / "gnu.jpg").write_bytes(bytes([6]))  # gnu first, ant second
    result = run("set", "--csv")
    assert result.exit_code == 1
    rows = list(csv.DictReader(io.StringIO(result.stdout_bytes.decode(), newline="")))
    assert tuple(rows[0]) == CSV_FIELDS
    assert len(rows) == 13
    by_file = {row["file"]: row for row in rows}
    assert by_file["set/Ant/gnu.jpg"] == {
        "file": "set/Ant/gnu.jpg", "class_index": "0", "class_label": "ant", "rank": "2",
        "index": "6", "label": "gnu", "wnid": "", "score": "0.5", "error": "",
    }  # fmt: skip
    assert by_file["set/Ant/3.jpg"]["rank"] == ""
    assert by_file["set/Ant/bad.jpg"]["error"] == "the bytes are no image"
    assert result.stderr.splitlines()[-3].startswith("top-1   58.33 %  (7 of 12;")
    assert result.stderr.splitlines()[-1] == "Error: 1 of 13 images could not be classified, and are not counted"


def test_an_archive_counts_the_same(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as zipped:
        for path in sorted((tmp_path / "set").rglob("*.jpg")):
            zipped.write(path, path.relative_to(tmp_path / "set"))
    folder, archive = run("set").stdout, run("set.zip").stdout
    assert archive == folder


def test_unknown_folders_are_refused_unless_they_are_to_be_skipped(tmp_path: Path) -> None:
    write(tmp_path / "set", {"caat": (1,), "zebra crossing": (1,)})
    refused = run("set")
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert "the folder 'caat' is no class of this model: did you mean 'cat'?; nor is 1 more" in line
    skipped = run("set", "--skip-unknown", "--json")
    assert skipped.exit_code == 0
    assert json.loads(skipped.stdout)["skipped_folders"] == ["caat", "zebra crossing"]
    assert json.loads(skipped.stdout)["images"] == 11
    assert "2 folders left out" in run("set", "--skip-unknown").stdout


def test_folders_of_which_none_is_a_class_are_refused_in_any_case(tmp_path: Path) -> None:
    write(tmp_path / "other", {"zebra": (1,)})
    assert run("other", "--skip-unknown").exit_code == 2


def test_a_name_of_two_classes_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = fake_info()
    labels = (*info.labels[:5], Label("crane", "n02012849"), Label("crane", "n03126707"))
    fake = FakeModel(info=info.__class__(**{**{f: getattr(info, f) for f in info.__dataclass_fields__}, "labels": labels}))
    monkeypatch.setattr("app.main.load_model", lambda _: fake)
    write(tmp_path / "set", {"Crane": (5,)})
    for arguments in (["set"], ["set", "--skip-unknown"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "5 (n02012849) and 6 (n03126707): give the index or the WordNet id instead" in result.stderr


@pytest.mark.parametrize("name", ["confusion.png", "confusion.svg", "confusion.pdf", "CONFUSION.PNG"])
def test_a_confusion_picture(name: str, tmp_path: Path) -> None:
    result = run("set", "--confusion", name)
    assert result.exit_code == 0, result.output
    assert result.stderr == f"drawn: {name}\n"
    data = (tmp_path / name).read_bytes()
    if name.lower().endswith("png"):
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.width > 300
    elif name.endswith("svg"):
        assert b"</svg>" in data
    else:
        assert data.startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["gone"], 2, "there is no gone"),
        (["set/Ant"], 2, "no images in folders named by class"),
        ([], 2, "Missing argument 'DIR'"),
        (["set", "--json", "--csv"], 2, "give one of them"),
        (["set", "--confusion", "a.jpg"], 2, "its name may end in .png, .svg, .pdf"),
        (["set", "--confusion", "none/a.png"], 2, "there is no such folder"),
        (["set", "--server", "http://127.0.0.1:9"], 1, "no answer from http://127.0.0.1:9"),
    ],
)
def test_wrong_calls_are_one_line(arguments: list[str], status: int, says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == status
    (line,) = result.stderr.splitlines()
    assert says in line


def test_without_the_plotting_library_that_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find(name, *rest))
    monkeypatch.setattr("app.main.load_model", lambda _: pytest.fail("it was loaded"))
    result = run("set", "--confusion", "a.png")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: figures need the extra that draws them: pip install 'sknet-serve[figures]'\n",
    )
    assert not Path("a.png").exists()


def test_images_that_fail_are_not_counted(tmp_path: Path) -> None:
    for path in (tmp_path / "set").rglob("*.jpg"):
        path.write_bytes(b"bad")
    result = run("set")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1] == "Error: 11 of 11 images could not be classified, and are not counted"


def test_loose_images_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "set" / "loose.jpg").write_bytes(b"\1")
    result = run("set")
    assert (result.exit_code, result.stderr) == (0, "loose.jpg: left out, in no folder of a class\n")
    assert "11 images of 3 classes" in result.stdout


def test_a_class_of_several_folders_is_one(tmp_path: Path) -> None:
    write(tmp_path / "nest", {"cat/day1": (2, 3), "cat/day2": (2,)})
    result = run("nest")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "3 images of 1 class" in result.stdout
    (tmp_path / "nest" / "cat" / "day1").rename(tmp_path / "nest" / "cat" / "1")
    result = run("nest")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the folders 'cat' and '1' in it are both named by a class" in result.stderr
