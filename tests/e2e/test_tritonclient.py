"""A real service, asked by Triton's own HTTP client: one photograph in every form has the scores of `POST /classify`."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.preprocess import normalise, pixels
from model.types import PreprocessSpec
from tests.e2e.server import environment, serve
from tests.images import encode, photograph
from tests.repo.readme import README

pytestmark = pytest.mark.e2e
CLASSES = 10


def write(folder: Path, spec: PreprocessSpec) -> bytes:
    """The photograph in each of its forms."""
    photo = encode(photograph())
    array = pixels(Image.open(io.BytesIO(photo)), spec)
    (folder / "photo").write_bytes(photo)
    np.save(folder / "pixels.npy", array[None])
    np.save(folder / "input.npy", normalise(array, spec)[None])
    return photo


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of every call; under `native` the scores of the service's own route, in the order of the classes."""
    folder = tmp_path_factory.mktemp("triton")
    with serve(SKNET_OPEN_ADMIN="true", SKNET_PREPROCESS="exact", SKNET_DEVICE="cpu") as server, server.client() as client:
        told = client.get("/models/default").json()["preprocess"]
        spec: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in told.items() if key != "description"}
        photo = write(folder, PreprocessSpec(**spec))
        native = client.post(f"/classify?top_k={CLASSES}", content=photo, headers={"Content-Type": "image/png"}).json()
        (example,) = re.findall(r"```py\n(import numpy.*?)```", README.read_text(), re.DOTALL)
        example = example.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace("photo.jpg", str(folder / "photo"))
        (folder / "readme.py").write_text(example)
        program = [sys.executable, "-m", "tests.e2e.triton_calls", f"127.0.0.1:{server.port}", str(folder)]
        done = subprocess.run(program, capture_output=True, text=True, timeout=60, env=environment(), check=False)
        assert done.returncode == 0, done.stderr
        ranked = sorted(native["predictions"], key=lambda each: each["index"])
        return {**json.loads(done.stdout), "native": [each["score"] for each in ranked], "best": native["predictions"]}


def test_what_serves(told: dict[str, Any]) -> None:
    assert told["live"] is True
    assert told["ready"] == [True] * 3
    assert told["not there"] == [False] * 2
    assert told["server"]["name"] == "sknet"
    assert {"classification", "binary_tensor_data", "model_repository"} <= set(told["server"]["extensions"])
    model = told["model"]
    assert model == told["version"]
    assert (model["name"], model["versions"]) == ("default", ["1"])
    assert [(each["name"], each["datatype"]) for each in model["inputs"]] == [
        ("image", "BYTES"),
        ("pixels", "UINT8"),
        ("input", "FP32"),
    ]
    assert [(each["name"], each["shape"]) for each in model["outputs"]] == [
        ("probabilities", [-1, CLASSES]),
        ("logits", [-1, CLASSES]),
    ]


def test_every_form_has_the_scores_of_the_native_route(told: dict[str, Any]) -> None:
    native = np.array(told["native"]).astype(np.float32)
    assert len(told["scores"]) == 12
    for form, found in told["scores"].items():
        scores, logits = np.array(found["probabilities"]), np.array(found["logits"])
        # The numbers of `input` are rounded once more before the network sees them.
        assert np.abs(scores - native).max() <= (1e-6 if form.startswith("input") else 0), form
        powers = np.exp(logits - logits.max())
        assert np.abs(powers / powers.sum() - native).max() < 1e-6, form
    assert np.array_equal(told["three"]["probabilities"], np.tile(native, 3))
    assert list(told["one output"]) == ["logits"]
    assert told["one output"]["logits"] == told["scores"]["image, binary"]["logits"]
    assert told["id"] == "42"


def test_the_best_classes(told: dict[str, Any]) -> None:
    expected = [f"{np.float32(each['score'])!s}:{each['index']}:{each['label']}" for each in told["best"][:3]]
    assert told["classification"] == {"False": expected, "True": expected}
    assert re.findall(r"b'(.*?)'", told["readme"]) == expected


def test_errors_reach_the_client_with_their_words(told: dict[str, Any]) -> None:
    refused = {name: (status, words) for name, (status, words) in told["refused"].items()}
    assert {name: status for name, (status, _) in refused.items()} == {
        "no image": "422", "no base64": "400", "shape": "422", "output": "422", "model": "404", "config": "400",
    }  # fmt: skip
    assert "no valid base64" in refused["no base64"][1]
    assert "'scores': it may be probabilities or logits" in refused["output"][1]
    assert "'config' is not taken here" in refused["config"][1]


def test_unloaded_and_loaded_again(told: dict[str, Any]) -> None:
    (before,), (between,), (after,) = told["index"]
    assert (before["state"], between["state"], between["reason"], after) == (
        "READY",
        "UNAVAILABLE",
        "the model was unloaded",
        before,
    )
    assert told["unloaded"][:3] == [False, False, "503"]
    assert told["loaded again"] == told["scores"]["image, binary"]
