"""`sknet explain`: what it prints and draws, of a model loaded here and of a service, and how it says no."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from app import client
from app.cli import main
from app.cli_explain import as_text, attention_table, bar
from app.routes.explain import answer_of
from app.schemas.explain import ExplainAnswer
from model.types import Explanation
from tests import images as make
from tests.app.asgi import Service, serving
from tests.fakes import FakeModel, fake_info
from tests.model.explanations import explanation


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments], env=env)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The fake ranks class 2 first, the cat."""
    path = tmp_path / "cat.jpg"
    path.write_bytes(b"\x02 picture")
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"bad")
    return path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    model = FakeModel()
    monkeypatch.setattr("app.main.load_model", lambda settings: model)
    return model


def answer(told: Explanation | None = None) -> ExplainAnswer:
    return ExplainAnswer.model_validate(answer_of(told or explanation(), fake_info(), "default"))


def test_the_image_is_not_written_over(tmp_path: Path, fake: FakeModel) -> None:
    image = tmp_path / "cat.png"
    image.write_bytes(b"\x02 picture")
    for option in ("--figure", "--overlay"):
        result = run(str(image), option, str(image))
        assert (result.exit_code, f"{option}: {image}: this is one of the files" in result.stderr) == (2, True)
    assert image.read_bytes() == b"\x02 picture"


def test_labels_and_names_do_not_move_the_cursor(tmp_path: Path) -> None:
    told = answer()
    told.predictions[0].label = told.class_activation.label = "cat\x1b[2J\n"
    told.comparable_reason = "\x1b]0;title\x07"
    text = as_text(Path("a\x1b[2J.jpg"), told)
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.count("cat\\x1b[2J\\n") == 2
    assert text.startswith("a\\x1b[2J.jpg: ")


def test_the_table_says_it_all(image: Path, fake: FakeModel) -> None:
    result = run(str(image), "--top-k", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"{image}: 40 x 30 PNG, skfake",
        "",
        "cat                       0.5000  ==========",
        "dog                       0.2500  =====",
        "",
        "evidence for cat: logit 2.5000 = mean of its map 2.0000 + bias 0.5000",
        "",
        "share of 5x5 less 3x3, with the centre enlarged",
        "UNIT    1.0x     1.5x     2.0x     -0.25         0         +0.25",
        "SK_2_1  +0.0400  +0.0400  +0.0400                |==",
        "SK_3_1  +0.0400  +0.0400  +0.0400                |==",
        "",
        "comparable to the paper: a test said so",
    ]
    assert fake.closed


def test_the_json_is_the_services(image: Path, fake: FakeModel) -> None:
    result = run(str(image), "--json", "--class", "gnu")
    told = ExplainAnswer.model_validate_json(result.stdout)
    assert [each.label for each in told.predictions] == ["cat", "dog", "elk", "fox", "gnu"]
    assert (told.class_activation.label, told.model.variant) == ("gnu", "skfake")
    assert [scale.scale for scale in told.scale_sweep] == [1.0, 1.5, 2.0]


def test_pictures_are_written_where_asked(image: Path, fake: FakeModel, tmp_path: Path) -> None:
    figure, overlay = tmp_path / "figure.PNG", tmp_path / "overlay.png"
    result = run(str(image), "-o", str(figure), "--overlay", str(overlay), "--class", "1")
    assert result.exit_code == 0, result.output
    assert figure.read_bytes() == b"\x89PNG\r\n\x1a\n figure bee"
    assert overlay.read_bytes() == b"\x89PNG\r\n\x1a\n overlay bee"


def test_a_real_model_draws_upright(tmp_path: Path) -> None:
    photograph = tmp_path / "chelsea.jpg"
    photograph.write_bytes(make.oriented(make.photograph(), 6, "JPEG", quality=90))
    figure, overlay = tmp_path / "figure.png", tmp_path / "overlay.png"
    result = run(str(photograph), "-o", str(figure), "--overlay", str(overlay))
    assert result.exit_code == 0, result.output
    assert "451 x 300 JPEG, skresnet14_cifar" in result.stdout
    with Image.open(io.BytesIO(figure.read_bytes())) as opened:
        assert opened.size == (1200, 1020)
    with Image.open(io.BytesIO(overlay.read_bytes())) as opened:
        assert opened.size == (451, 300)  # upright


@pytest.mark.parametrize(("name", "start"), [("figure.svg", b"<?xml"), ("figure.pdf", b"%PDF")])
def test_a_model_here_draws_for_print_as_well(image: Path, tmp_path: Path, fake: FakeModel, name: str, start: bytes) -> None:
    result = run(str(image), "-o", str(tmp_path / name))
    assert result.exit_code == 0, result.output
    assert (tmp_path / name).read_bytes() == start + b" figure cat"


def test_what_is_for_print_is_decoded_and_drawn_where_everything_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the model, within its limits: the plotting library has nothing to do in this process."""
    monkeypatch.setattr("model.figure.draw", None)
    photograph = tmp_path / "chelsea.tiff"
    photograph.write_bytes(make.encode(make.photograph(size=(60, 40)), "TIFF"))
    result = run(str(photograph), "-o", str(tmp_path / "figure.svg"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "figure.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["nowhere.jpg"], 1, "nowhere.jpg: No such file or directory"),
        (["{image}", "-o", "figure.gif"], 2, "figure.gif: the name may end in .png, .svg or .pdf"),
        (["{image}", "-o", "no/such/folder/figure.png"], 1, "no/such/folder/figure.png: No such file or directory"),
        (["{image}", "--class", "unicorn"], 1, "'unicorn' is no class of this model"),
        (["{image}", "--class", "7"], 1, "'7' is no class of this model"),
        (["{image}", "--top-k", "0"], 2, "--top-k is '0'"),
        (["{image}", "--key-file", "{image}"], 2, "give --server as well"),
        (["{image}", "--server", "http://x", "--threads", "1"], 2, "--threads is about a model loaded here"),
        (["{image}", "--server", "http://x", "-o", "a.svg"], 2, "a service draws .png only, not .svg"),
        (["{image}", "--server", "no address"], 2, "no address"),
        (["{image}", "--server", "http://x", "--key-file", "no/such"], 2, "'no/such' does not exist"),
    ],
)
def test_errors_are_one_line(image: Path, fake: FakeModel, arguments: list[str], status: int, says: str) -> None:
    result = run(*(argument.format(image=image) for argument in arguments))
    assert result.exit_code == status, result.output
    assert says in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output


def test_a_file_that_is_no_image_is_one_line(broken: Path, fake: FakeModel) -> None:
    result = run(str(broken))
    assert (result.exit_code, result.stderr) == (1, "Error: the bytes are no image\n")
    assert fake.closed


def test_without_the_library_it_says_what_to_install(image: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photograph = tmp_path / "chelsea.jpg"
    photograph.write_bytes(make.encode(make.photograph(), "JPEG"))
    from model import plots
    from model.errors import FiguresUnavailable

    def missing() -> None:
        raise FiguresUnavailable

    monkeypatch.setattr(plots, "require", missing)
    result = run(str(photograph), "-o", str(tmp_path / "figure.png"))
    assert (result.exit_code, result.stderr.strip().splitlines()[-1]) == (
        1, "Error: figures need the extra that draws them: pip install 'sknet-serve[figures]'",
    )  # fmt: skip
    assert not (tmp_path / "figure.png").exists()


def test_a_missing_library_is_said_before_the_work(image: Path, fake: FakeModel, tmp_path: Path) -> None:
    fake.figures = False
    result = run(str(image), "-o", str(tmp_path / "figure.png"))
    assert (result.exit_code, "sknet-serve[figures]" in result.stderr) == (1, True)
    assert (fake.prepared, fake.closed) == ([], True)


# --- a service ---------------------------------------------------------------------------------------------------------


class Bridge(httpx.BaseTransport):
    """Lets the blocking client of a command, in a thread, ask an application that lives in an event loop."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self._service, self._loop = service, loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run_coroutine_threadsafe(self._ask(request), self._loop).result(30)

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url.copy_with(scheme="http", host="service", port=None))
        found = await self._service.client.request(request.method, url, headers=request.headers, content=request.read())
        return httpx.Response(found.status_code, headers=found.headers, content=found.content)


@asynccontextmanager
async def a_service(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[Callable[..., Awaitable[Result]]]:
    """A service with a fake model; what it gives runs the command against it, in a thread."""
    async with serving(**settings) as service:
        bridge = Bridge(service, asyncio.get_running_loop())
        monkeypatch.setattr("app.client.Client", partial(client.Client, transport=bridge))
        yield lambda *arguments: asyncio.to_thread(run, *arguments, "--server", "http://anywhere:9")


async def test_a_service_says_the_same_as_a_model_here(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: FakeModel
) -> None:
    here = run(str(image), "--class", "dog", "--top-k", "3")
    figure, overlay = tmp_path / "figure.png", tmp_path / "overlay.png"
    async with a_service(monkeypatch) as there:
        result = await there(str(image), "--class", "dog", "--top-k", "3", "-o", str(figure), "--overlay", str(overlay))
        assert result.exit_code == 0, result.output
        assert result.stdout == here.stdout
        told = await there(str(image), "--class", "n00000001", "--json")
    assert json.loads(told.stdout)["class_activation"]["label"] == "bee"
    assert figure.read_bytes() == b"\x89PNG\r\n\x1a\n figure dog"
    assert overlay.read_bytes() == b"\x89PNG\r\n\x1a\n overlay dog"


async def test_a_service_that_says_no_is_one_line(image: Path, broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_service(monkeypatch) as there:
        result = await there(str(broken))
        assert (result.exit_code, result.stderr) == (1, "Error: the bytes are no image\n")
        result = await there(str(image), "--class", "unicorn")
        assert result.stderr.startswith("Error: 'unicorn' is no class of this model")


def files(folder: Path, *texts: str) -> list[Path]:
    """A file of each text."""
    paths = [folder / f"{i}.txt" for i in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


async def test_a_key_comes_out_of_a_file_and_is_never_shown(image: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = "a-key-of-16-chars-or-more"
    right, wrong = files(tmp_path, f"{key}\nanother line\n", "another-key-of-16-chars\n")
    async with a_service(monkeypatch, api_keys=f"me:predict:{key}") as there:
        assert (await there(str(image), "--key-file", str(right))).exit_code == 0
        for arguments in ([], ["--key-file", str(wrong)]):
            result = await there(str(image), *arguments)
            assert result.exit_code == 1
            assert "key" in result.stderr
            assert "key-of-16" not in result.output


async def test_or_the_environment_holds_it(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKNET_CLIENT_KEY", "a-key-of-16-chars-or-more")
    async with a_service(monkeypatch, api_keys="me:predict:a-key-of-16-chars-or-more") as there:
        assert (await there(str(image))).exit_code == 0


def test_what_is_no_photograph_by_its_size_is_not_read(tmp_path: Path, fake: FakeModel) -> None:
    film = tmp_path / "film.jpg"
    with film.open("wb") as file:
        file.truncate(100_000_001)  # of holes
    result = run(str(film))
    assert (result.exit_code, result.stderr) == (1, f"Error: {film}: larger than 100 MB\n")
    assert fake.prepared == []


def test_nobody_there_is_one_line(image: Path) -> None:
    result = run(str(image), "--server", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no answer from http://127.0.0.1:9")
    assert len(result.stderr.splitlines()) == 1


# --- what is printed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "text"),
    [(0, ""), (0.5, " " * 14 + "|======="), (1, " " * 14 + "|" + "=" * 14), (-0.5, " " * 7 + "=======|"), (-1, "=" * 14 + "|")],
)
def test_a_bar_starts_in_the_middle(part: float, text: str) -> None:
    assert bar(part).rstrip() == text or (part == 0 and bar(part).strip() == "|")
    assert len(bar(part)) == 29


@pytest.mark.parametrize(("first", "limit"), [(0.001, "0.25"), (-0.3, "0.5"), (0.7, "1")])
def test_the_bars_line_is_not_fitted_to_the_values(first: float, limit: str) -> None:
    text = attention_table(answer(explanation(first=first)).scale_sweep)
    assert f"-{limit} " in text
    assert f" +{limit}" in text


def test_more_kernels_show_the_mean_size() -> None:
    told = explanation(kernel_sizes=(3, 5, 7))
    lines = attention_table(answer(told).scale_sweep).splitlines()
    assert lines[0] == "share of 7x7 less 3x3, with the centre enlarged"
    assert lines[1].endswith("MEAN SIZE")
    assert [line.split()[-1] for line in lines[2:]] == [f"{unit.mean_kernel_size:.3f}" for unit in told.attention.units]
