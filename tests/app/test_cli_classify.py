"""`sknet classify`: what it takes, what it prints, how it ends."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from app.cli import main
from tests.fakes import LABELS, FakeModel


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeModel:
    """The first byte of a file says what is in it."""
    fake = FakeModel()
    monkeypatch.setattr("app.main.load_model", lambda _: fake)
    monkeypatch.chdir(tmp_path)
    for name, data in {"a.jpg": b"\2", "b/10.jpg": b"\3", "b/9.jpg": b"\4", "bad.png": b"bad", "notes.txt": b"\1"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return fake


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["classify", *arguments], input=stdin, prog_name="sknet")


def labels(result: Result) -> dict[str, str]:
    """File -> first label, of JSON lines."""
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return {each["file"]: each["predictions"][0]["label"] if "predictions" in each else each["error"] for each in found}


def test_a_table(model: FakeModel) -> None:
    result = run("a.jpg", "b", "--top-k", "2")
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["a.jpg", "cat", "0.5000"], ["dog", "0.2500"],
        ["b/9.jpg", "elk", "0.5000"], ["fox", "0.2500"],
        ["b/10.jpg", "dog", "0.5000"], ["elk", "0.2500"],
    ]  # fmt: skip
    assert result.stderr == ""
    assert model.closed


def test_folders_patterns_and_files_in_json() -> None:
    result = run("b/*.jpg", "notes.txt", ".", "--json")
    assert result.exit_code == 1
    assert labels(result) == {
        "b/9.jpg": "elk", "b/10.jpg": "dog", "notes.txt": "bee", "a.jpg": "cat", "bad.png": "the bytes are no image",
    }  # fmt: skip
    assert len(result.stdout.splitlines()) == 7
    assert result.stderr.splitlines() == ["bad.png: the bytes are no image", "Error: 1 of 7 images could not be classified"]


def test_csv() -> None:
    result = run("a.jpg", "bad.png", "--csv", "--top-k", "1")
    rows = list(csv.reader(io.StringIO(result.stdout_bytes.decode(), newline="")))
    assert rows == [
        ["file", "rank", "index", "label", "wnid", "score", "error"],
        ["a.jpg", "1", "2", "cat", "", "0.5", ""],
        ["bad.png", "", "", "", "", "", "the bytes are no image"],
    ]
    assert result.stdout_bytes.count(b"\r\n") == 3


def test_no_photograph_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("bad.png\n")
    for arguments in (("a.jpg", "b", "-o", "a.jpg"), ("b", "-o", "b/9.jpg"), ("--paths-from", "list", "-o", "list")):
        result = run(*arguments)
        assert result.exit_code == 2
        assert f"Invalid value for --output: {arguments[-1]}: this is one of the files to be read" in result.stderr
    assert [(tmp_path / name).read_bytes() for name in ("a.jpg", "b/9.jpg", "list")] == [b"\2", b"\4", b"bad.png\n"]


def test_a_name_that_is_too_long_is_told_as_such() -> None:
    for more in ((), ("--paths-from", "notes.txt")):
        result = run("a" * 300 + ".jpg", *more)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: aaa")
        assert "--paths-from" not in line
    assert "--paths-from none: No such file" in run("--paths-from", "none").stderr


def test_a_name_does_not_move_the_cursor() -> None:
    for name in ("\x1b[2J\n.jpg", "\x1b[2J\n*.jpg"):
        result = run(name)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert "\\x1b[2J" in line


def test_standard_input_is_read_for_one_thing() -> None:
    server = ("--server", "http://127.0.0.1:9", "--key-file", "-")
    for arguments, what in ((("-", *server), "an image"), (("--paths-from", "-", *server), "the list")):
        result = run(*arguments, stdin=b"a-key-of-16-chars\n")
        assert (result.exit_code, f"--key-file -: standard input is {what}" in result.stderr) == (2, True)


def test_into_a_file(tmp_path: Path) -> None:
    result = run("b", "--json", "-o", "out.jsonl")
    assert (result.exit_code, result.stdout) == (0, "")
    assert [json.loads(line)["file"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ["b/9.jpg", "b/10.jpg"]
    assert run("a.jpg", "-o", "-").stdout.startswith("a.jpg")
    refused = run("a.jpg", "-o", "none/out")
    assert (refused.exit_code, "No such file or directory" in refused.stderr) == (2, True)


def test_standard_input_is_an_image() -> None:
    assert labels(run("-", "a.jpg", "--json", stdin=b"\5")) == {"-": "fox", "a.jpg": "cat"}


def test_a_list_of_paths(tmp_path: Path) -> None:
    (tmp_path / "new\nline.jpg").write_bytes(b"\6")
    assert labels(run("--paths-from", "-", "--json", stdin=b"a.jpg\nb/9.jpg\n")) == {"a.jpg": "cat", "b/9.jpg": "elk"}
    assert labels(run("-0", "--paths-from", "-", "--json", stdin=b"new\nline.jpg\0")) == {"new\nline.jpg": "gnu"}
    (tmp_path / "list").write_text("gone.jpg\nnotes.txt\n")
    result = run("a.jpg", "--paths-from", "list", "--json")
    assert result.exit_code == 1  # what a list names is data: the rest is classified
    assert labels(result) == {"a.jpg": "cat", "gone.jpg": "No such file or directory", "notes.txt": "bee"}


def test_scores_below_the_least_are_left_out() -> None:
    assert len(run("a.jpg", "--min-score", "0.2").stdout.splitlines()) == 2
    assert run("a.jpg", "--min-score", "0.9").stdout == "a.jpg  -\n"


def test_explain_adds_kernel_attention() -> None:
    told = json.loads(run("a.jpg", "--json", "--explain").stdout)
    assert [unit["unit"] for unit in told["kernel_attention"]] == ["SK_2_1", "SK_3_1"]
    assert told["comparable_to_paper"] is True
    assert "kernel_attention" not in json.loads(run("a.jpg", "--json").stdout)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Missing argument"),
        (["gone.jpg", "a.jpg"], "there is no gone.jpg"),
        (["*.gif"], "no image matches *.gif"),
        (["--json", "--csv", "a.jpg"], "give one of them"),
        (["--explain", "a.jpg"], "give --json as well"),
        (["-0", "a.jpg"], "--paths-from"),
        (["-", "--paths-from", "-"], "standard input, which is the list"),
        (["-", "-"], "give - once"),
        (["--paths-from", "gone"], "No such file or directory"),
        (["--paths-from", "-"], "there are no paths in it"),
        (["a.jpg", "--min-score", "2"], "--min-score"),
        (["a.jpg", "--top-k", "0"], "--top-k is '0'"),
        (["a.jpg", "--server", "http://127.0.0.1:9", "--threads", "1"], "--threads is about a model loaded here"),
    ],
)
def test_wrong_calls_are_one_line_and_load_nothing(arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.main.load_model", lambda _: pytest.fail("it was loaded"))
    result = run(*arguments, stdin=b"")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert says in line
    assert result.stdout == ""


def test_no_service_is_one_line() -> None:
    result = run("a.jpg", "--server", "http://127.0.0.1:9")
    assert (result.exit_code, result.stderr) == (1, "Error: no answer from http://127.0.0.1:9: connection refused\n")


def test_progress_is_told_where_many_are_classified(tmp_path: Path) -> None:
    for i in range(120):
        (tmp_path / "b" / f"{i}.jpg").write_bytes(b"\1")
    result = run("b")
    assert result.stderr == "100 of 120 images\n"
    assert sum("bee" in line for line in result.stdout.splitlines()) == 120


def test_the_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = tmp_path / "noise.png"
    Image.effect_noise((50, 40), 60).save(path)
    told = json.loads(run(str(path), "--json", "--explain").stdout)
    assert told["image"] == {"width": 50, "height": 40, "format": "PNG"}
    assert sum(p["score"] for p in told["predictions"]) <= 1 + 1e-9
    assert told["predictions"][0]["score"] >= told["predictions"][1]["score"]
    assert all(abs(sum(unit["mean_attention"]) - 1) < 1e-3 for unit in told["kernel_attention"])


def test_a_name_that_could_move_the_cursor_is_told_in_escapes(tmp_path: Path) -> None:
    (tmp_path / "\x1b[2J.jpg").write_bytes(b"bad")
    result = run("\x1b[2J.jpg")
    assert result.stderr.splitlines()[0] == "\\x1b[2J.jpg: the bytes are no image"


def test_labels_of_the_fake_are_what_these_tests_count_on() -> None:
    assert [label.name for label in LABELS] == ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"]


@pytest.mark.parametrize("arguments", [["a" * 300 + ".jpg"], ["a.jpg", "--paths-from", "long"]])
def test_what_is_too_long_is_one_line(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long").write_text("a.jpg\n" * 1000)
    monkeypatch.setattr("app.paths.MAX_LIST_BYTES", 5000)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert "a.jpg: File name too long" in line if len(arguments) == 1 else "the list of paths is larger than" in line
    assert "--paths-from None" not in line
