"""Every call that is shown of Triton's HTTP client: `python -m tests.e2e.triton_calls HOST:PORT FOLDER` prints what came of each.

A process of its own, since the client brings an event loop that is not asyncio's. FOLDER has `photo` (an encoded image), and
`pixels.npy` and `input.npy`, which are the same one as the network takes it;
`readme.py` is the example of the README.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import runpy
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

MODEL = "default"
NAMES = ("probabilities", "logits")


def tensor(name: str, kind: str, array: NDArray[Any], *, binary: bool) -> Any:
    """An input of a request."""
    made = triton.InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def scores(result: Any) -> dict[str, list[float]]:
    return {name: result.as_numpy(name).ravel().tolist() for name in NAMES if result.get_output(name) is not None}


def outputs(*, binary: bool, classes: int = 0, names: Sequence[str] = NAMES) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=binary, class_count=classes) for name in names]


def refused(call: Callable[[], Any]) -> list[str]:
    """Status and words of an error."""
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    raise AssertionError("that should have failed")


def main() -> None:
    warnings.simplefilter("error")
    folder = Path(sys.argv[2])
    photo = (folder / "photo").read_bytes()
    pixels, floats = np.load(folder / "pixels.npy"), np.load(folder / "input.npy")
    texts = np.array([base64.b64encode(photo)], np.object_)
    client = triton.InferenceServerClient(sys.argv[1])

    def infer(*inputs: Any, **options: Any) -> Any:
        return client.infer(MODEL, list(inputs), **options)

    def image(count: int = 1) -> Any:
        return tensor("image", "BYTES", np.array([photo] * count, np.object_), binary=True)

    told: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": [client.is_server_ready(), client.is_model_ready(MODEL), client.is_model_ready(MODEL, "1")],
        "not there": [client.is_model_ready("other"), client.is_model_ready(MODEL, "2")],
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(MODEL),
        "version": client.get_model_metadata(MODEL, "1"),
    }
    both = {"image": (texts, "BYTES"), "pixels": (pixels, "UINT8"), "input": (floats, "FP32")}
    told["scores"] = {
        "image, binary": scores(infer(image())),
        **{f"{name}, JSON": scores(infer(tensor(name, kind, array, binary=False))) for name, (array, kind) in both.items()},
        "pixels, binary": scores(infer(tensor("pixels", "UINT8", pixels, binary=True))),
        "input, binary": scores(infer(tensor("input", "FP32", floats, binary=True))),
        "answer in JSON": scores(infer(image(), outputs=outputs(binary=False))),
        "a version": scores(infer(image(), model_version="1")),
        "gzip": scores(infer(image(), request_compression_algorithm="gzip", response_compression_algorithm="gzip")),
        "deflate": scores(infer(image(), request_compression_algorithm="deflate")),
        "parameters": scores(infer(image(), priority=1, timeout=10_000_000, sequence_id=7, parameters={"any": "word"})),
        "asynchronous": scores(client.async_infer(MODEL, [image()]).get_result()),
    }
    told["three"] = scores(infer(image(3)))
    told["id"] = infer(image(), request_id="42").get_response()["id"]
    told["one output"] = scores(infer(image(), outputs=outputs(binary=True, names=["logits"])))
    told["classification"] = {
        str(binary): infer(image(), outputs=outputs(binary=binary, classes=3)).as_numpy("probabilities").ravel().tolist()
        for binary in (False, True)
    }
    told["classification"]["True"] = [text.decode() for text in told["classification"]["True"]]
    told["refused"] = {
        "no image": refused(lambda: infer(tensor("image", "BYTES", np.array([b"no image"], np.object_), binary=True))),
        "no base64": refused(lambda: infer(tensor("image", "BYTES", np.array([b"no image"], np.object_), binary=False))),
        "shape": refused(lambda: infer(tensor("pixels", "UINT8", pixels[0], binary=True))),
        "output": refused(lambda: infer(image(), outputs=outputs(binary=True, names=["scores"]))),
        "model": refused(lambda: client.infer("other", [image()])),
        "config": refused(lambda: client.load_model(MODEL, config="{}", files={"file:1/model.onnx": b"x"})),
    }
    told["index"] = [client.get_model_repository_index()]
    client.unload_model(MODEL)
    told["index"].append(client.get_model_repository_index())
    told["unloaded"] = [client.is_server_ready(), client.is_model_ready(MODEL), *refused(lambda: infer(image()))]
    client.load_model(MODEL)
    told["index"].append(client.get_model_repository_index())
    told["loaded again"] = scores(infer(image()))
    client.close()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(folder / "readme.py"))
    print(json.dumps({**told, "readme": printed.getvalue()}))


if __name__ == "__main__":
    main()
