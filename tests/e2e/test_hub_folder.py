"""Weights as timm publishes them give timm's answers."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from tests.e2e.hub_folder import timm_top5, write
from tests.e2e.server import serve

pytestmark = pytest.mark.e2e


def photographs() -> dict[str, bytes]:
    """Real photographs of several shapes, as JPEGs."""
    pixels = {
        "chelsea": skimage.data.chelsea(),
        "chelsea, odd": skimage.data.chelsea()[:299, :401],
        "coffee, tall": skimage.data.coffee()[:, 50:350],
        "astronaut": skimage.data.astronaut(),
    }
    found = {}
    for name, array in pixels.items():
        out = io.BytesIO()
        Image.fromarray(array).save(out, "JPEG", quality=90)
        found[name] = out.getvalue()
    return found


def test_a_folder_of_timm_is_served_with_timms_answers(tmp_path: Path) -> None:
    model = write(tmp_path)
    with serve("--checkpoint", str(tmp_path), "--engine", "eager", "--preprocess", "exact") as server, server.client() as client:
        for name, data in photographs().items():
            ours = client.post("/classify", files={"file": ("x.jpg", data)}).json()["predictions"]
            theirs = timm_top5(model, data)
            assert [p["index"] for p in ours] == [i for i, _ in theirs], name
            assert [p["score"] for p in ours] == pytest.approx([s for _, s in theirs], abs=1e-4), name
            assert all(p["wnid"].startswith("n") for p in ours)
        model_card = client.get("/models/default").json()
        assert model_card["variant"] == "skresnet18"
        assert model_card["parameters"] == 11_958_056
        assert model_card["gmacs"] == pytest.approx(1.814338, abs=1e-6)
