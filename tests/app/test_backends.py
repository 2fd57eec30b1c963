"""Which flags choose who classifies, and where the key comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from app.answers import Answer, Gone
from app.backends import answers, backend
from app.image_files import Source
from app.local import Local
from app.settings import Settings, unknown_variables
from tests.fakes import FakeModel

KEY = "a-key-of-16-chars"


@pytest.fixture
def remotes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    made: list[tuple[str, str | None]] = []

    def remote(server: str, key: str | None) -> Any:
        made.append((server, key))

    monkeypatch.setattr("app.remote.Remote", remote)
    return made


def test_a_model_is_loaded_here_where_no_service_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = FakeModel(), list[Settings]()

    def load(settings: Settings) -> FakeModel:
        seen.append(settings)
        return model

    monkeypatch.setattr("app.main.load_model", load)
    start = backend(None, None, {"threads": "3"})
    assert not seen  # not before it is asked for
    with start() as made:
        assert isinstance(made, Local)
    assert [settings.threads for settings in seen] == [3]
    assert model.closed


def test_the_key_comes_from_the_environment_or_a_file(
    remotes: list[tuple[str, str | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\r\n# a note\n")
    backend("http://a", None, {})()
    backend("http://a", str(file), {})()
    monkeypatch.setenv("SKNET_CLIENT_KEY", "of-the-environment")
    backend("http://a", None, {})()
    backend("http://a", str(file), {})()
    assert [key for _, key in remotes] == [None, KEY, "of-the-environment", KEY]
    assert unknown_variables() == ()


def test_contradictions_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "key"
    empty.write_bytes(b"\n\xff")
    for arguments, says in (
        (("http://a", None, {"engine": "eager"}), "--engine is about a model loaded here"),
        ((None, str(empty), {}), "--key-file is for a service"),
        (("http://a", str(empty), {}), "first line is no key"),
        ((None, None, {"threads": "-1"}), "--threads is '-1'"),
    ):
        with pytest.raises(click.UsageError, match=says):
            backend(*arguments)


def test_a_service_that_is_gone_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(server: str, key: str | None) -> Any:
        raise Gone(f"no answer from {server}")

    monkeypatch.setattr("app.remote.Remote", gone)
    with pytest.raises(click.ClickException, match="no answer from http://a") as caught:
        backend("http://a", None, {})()
    assert caught.value.exit_code == 1


def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKNET_CLIENT_KEY", "two words")
    with pytest.raises(click.UsageError, match="the key") as caught:
        backend("http://a", None, {})()
    assert "two words" not in caught.value.message


class Leaving(Local):
    """Answers two images, and is gone then."""

    def classify(self, sources: Any, *, k: int, attention: bool = False) -> Any:
        for i, answer in enumerate(super().classify(sources, k=k, attention=attention)):
            if i == 2:
                raise Gone("no answer from http://a")
            yield answer


def test_a_service_that_goes_away_says_how_far_it_came() -> None:
    found: list[Answer] = []
    images = [Source(str(i), lambda _: b"\1") for i in range(10)]
    with pytest.raises(click.ClickException, match="no answer from http://a: stopped after 2 of 10 images"):
        with answers(Leaving(FakeModel()), images, k=1) as each:
            found.extend(each)
    assert [answer.name for answer in found] == ["0", "1"]
