"""The confusion picture: what it draws, in which form, and how much of it for how many classes."""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model import confusion
from model.confusion import draw, figure
from model.errors import FiguresUnavailable, ModelError
from model.labels import imagenet1k
from model.types import Label

LABELS = tuple(Label(f"class {i}, also called c{i}") for i in range(2001))


def counts_of(count: int, *, others: bool = False) -> NDArray[np.int64]:
    counts = np.zeros((count, count + 1), dtype=np.int64)
    np.fill_diagonal(counts, 30)
    counts[0, 1:3] = (9, 1)
    if others:
        counts[:, -1] = 10
    return counts


def texts(axes: Any) -> dict[str, str]:
    return {text.get_gid(): text.get_text() for text in axes.texts}


def test_ten_classes_have_names_and_numbers() -> None:
    counts = counts_of(10)
    axes = figure(range(10), counts, LABELS, "the title\nin two lines").axes[0]
    drawn = axes.images[0].get_array()
    assert drawn is not None
    np.testing.assert_allclose(drawn, 100 * counts[:, :10] / counts.sum(axis=1, keepdims=True))
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"class {i}" for i in range(10)]
    assert texts(axes) == {"0,0": "75", "0,1": "22", "0,2": "2", **{f"{i},{i}": "100" for i in range(1, 10)}}
    assert axes.get_title(loc="left") == "the title\nin two lines"
    assert "class" in axes.get_xlabel()
    assert "class" in axes.get_ylabel()
    assert axes.images[0].get_cmap().name == "cividis"


def test_numbers_stand_out_from_their_cells() -> None:
    axes = figure(range(10), counts_of(10), LABELS, "").axes[0]
    picture = axes.images[0]
    for text in axes.texts:
        row, column = (int(part) for part in str(text.get_gid()).split(","))
        drawn = picture.get_array()
        assert drawn is not None
        cell = np.asarray(picture.to_rgba(np.asarray([[drawn[row, column]]])))[0, 0, :3]
        light = float((np.where(cell <= 0.04045, cell / 12.92, ((cell + 0.055) / 1.055) ** 2.4) * (0.2126, 0.7152, 0.0722)).sum())
        contrast = (light + 0.05) / 0.05 if text.get_color() == "black" else 1.05 / (light + 0.05)
        assert contrast >= 4.5  # WCAG 2.2, success criterion 1.4.3


def test_classes_without_images_share_a_column() -> None:
    axes = figure((3, 7), counts_of(2, others=True)[:, :3], LABELS, "").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["class 3", "class 7", "any other"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["class 3", "class 7"]


def test_thousand_classes_have_a_pixel_each_and_indices() -> None:
    shown = figure(range(1000), counts_of(1000), imagenet1k(), "")
    axes = shown.axes[0]
    assert not axes.texts
    assert [int(label.get_text()) for label in axes.get_xticklabels()] == list(range(0, 1000, 100))
    data = draw(range(1000), counts_of(1000), imagenet1k(), "", "png")
    with Image.open(io.BytesIO(data)) as picture:
        assert min(picture.size) >= 1000
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 10


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG\r\n\x1a\n"), ("svg", b"<?xml"), ("pdf", b"%PDF-")])
def test_every_form_is_drawn_whatever_the_labels(form: str, start: bytes) -> None:
    labels = [Label("$\\alpha$ 100 % _{"), Label("\u9db4 \U0001f426"), Label("a\nb\x00c"), Label("x" * 500)]
    data = draw(range(4), counts_of(4), labels, "$x^ \u9db4", form)
    assert data.startswith(start)
    if form == "png":
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.width >= 400
            assert picture.height >= 400
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 10


def test_without_the_plotting_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FiguresUnavailable, match=r"pip install 'sknet-serve\[figures\]'"):
        figure(range(3), counts_of(3), LABELS, "")


def test_more_classes_than_can_be_seen_are_refused() -> None:
    with pytest.raises(ModelError, match="at most 2000"):
        figure(range(confusion.MOST + 1), np.zeros((1, 1), np.int64), LABELS, "")
