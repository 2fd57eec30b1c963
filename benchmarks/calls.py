"""Every dialect asked by its own client, one line a call, with what it said: `python -m benchmarks.calls [PHOTO]`.

No speed here: it shows that the clients people have work as they are, and that one photograph has one ranking in every dialect.
Exits 1 if a call came out wrong. The native route, float32 on the processor, is what the others are held against.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from app.bench.process import free_port
from benchmarks.dialects import tensors
from benchmarks.ours import address, finish, serving
from benchmarks.photographs import photographs
from benchmarks.report import publish, table

CHECKPOINT = "bundled:cifar10"
TENSOR = 1e-4  # a normalised tensor is rounded once more than the pixels that the graph normalises
Check = tuple[str, Callable[[], Any], Callable[[Any], bool]]  # a call in words, the call, whether its answer is right


@dataclass
class Told:
    """The lines so far."""

    rows: list[tuple[str, ...]] = field(default_factory=lambda: [("client", "call", "answer", "right")])

    def add(self, client: str, checks: Iterator[Check]) -> None:
        for words, call, right in checks:
            try:
                answer = call()
                verdict = "yes" if right(answer) else "NO"
            except Exception as error:
                answer, verdict = f"{type(error).__name__}: {error}", "NO"
            self.rows.append((client, words, _short(answer), verdict))

    @property
    def wrong(self) -> int:
        return sum(row[-1] == "NO" for row in self.rows)


def _short(answer: Any) -> str:
    text = " ".join(str(answer).split())
    return text if len(text) <= 90 else text[:87] + "..."


def native(client: httpx.Client, data: bytes) -> dict[str, float]:
    """Label -> score, of every class."""
    answer = client.post("/classify?top_k=10", content=data, headers={"Content-Type": "image/jpeg"}).raise_for_status()
    return {each["label"]: each["score"] for each in answer.json()["predictions"]}


def triton(kind: str, url: str, data: bytes, expected: dict[str, float], labels: list[str]) -> Iterator[Check]:
    """`tritonclient.http` or `tritonclient.grpc`: the calls of both are of the same names."""
    if kind == "http":
        import tritonclient.http as library
    else:
        import tritonclient.grpc as library
    client = library.InferenceServerClient(url)
    pixels, floats = tensors(CHECKPOINT, None, data)
    wanted = np.array([expected[label] for label in labels], np.float32)

    def given(name: str, datatype: str, array: Any, **how: Any) -> Any:
        tensor = library.InferInput(name, array.shape, datatype)
        tensor.set_data_from_numpy(array, **how)
        return tensor

    def infer(tensor: Any, **how: Any) -> Any:
        outputs = [library.InferRequestedOutput("probabilities", **how)]
        return client.infer("default", [tensor], outputs=outputs, request_id="mine").as_numpy("probabilities")

    def near(tolerance: float) -> Callable[[Any], bool]:
        return lambda found: found.shape == (1, len(labels)) and float(np.abs(found[0] - wanted).max()) <= tolerance

    image = np.array([data], np.object_)
    yield "is_server_live", client.is_server_live, bool
    yield "is_server_ready", client.is_server_ready, bool
    yield "is_model_ready", partial(client.is_model_ready, "default"), bool
    yield "get_server_metadata", client.get_server_metadata, lambda found: "sknet" in str(found).lower()
    inputs = ("image", "pixels", "input")
    yield "get_model_metadata", partial(client.get_model_metadata, "default"), lambda found: all(n in str(found) for n in inputs)
    ways = [("binary", True), ("JSON", False)] if kind == "http" else [("raw", None)]
    for words, binary in ways:
        how = {} if binary is None else {"binary_data": binary}
        texts = image if binary is not False else np.array([base64.b64encode(data)], np.object_)
        yield f"infer, BYTES, {words}", partial(infer, given("image", "BYTES", texts, **how), **how), near(1e-6)
        yield f"infer, UINT8, {words}", partial(infer, given("pixels", "UINT8", pixels, **how), **how), near(1e-6)
        yield f"infer, FP32, {words}", partial(infer, given("input", "FP32", floats, **how), **how), near(TENSOR)
    best = max(expected, key=lambda label: expected[label])
    classes = partial(infer, given("image", "BYTES", image), class_count=3)
    yield "infer, classification of 3", classes, lambda found: found.shape == (1, 3) and best in str(found[0][0])
    index = client.get_model_repository_index
    yield "get_model_repository_index", index, lambda found: "READY" in str(found)
    yield "unload_model", partial(client.unload_model, "default"), lambda found: not client.is_model_ready("default")
    yield "load_model", partial(client.load_model, "default"), lambda found: client.is_model_ready("default")
    yield "infer after it", partial(infer, given("image", "BYTES", image)), near(1e-6)


def hugging_face(url: str, data: bytes, expected: dict[str, float]) -> Iterator[Check]:
    """`huggingface_hub.InferenceClient`."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read when the library is imported
    from huggingface_hub import InferenceClient

    client = InferenceClient(f"{url}/hf")

    def same(found: Any) -> bool:
        return all(math.isclose(each.score, expected[each.label], abs_tol=1e-6) for each in found)

    def told(**how: Any) -> Any:
        return client.image_classification(data, **how)

    yield "image_classification", told, lambda found: len(found) == 5 and same(found)
    yield "image_classification, top_k=2", partial(told, top_k=2), lambda found: len(found) == 2 and same(found)
    for function, right in (("softmax", same), ("sigmoid", lambda found: all(0 < each.score < 1 for each in found))):
        yield f"..., function_to_apply={function}", partial(told, function_to_apply=function), right
    none = partial(told, function_to_apply="none", top_k=10)
    yield "..., function_to_apply=none", none, lambda found: _softmax_is(found, expected)


def _softmax_is(found: Any, expected: dict[str, float]) -> bool:
    powers = {each.label: math.exp(each.score) for each in found}
    total = sum(powers.values())
    return all(math.isclose(power / total, expected[label], abs_tol=1e-5) for label, power in powers.items())


def platforms(client: httpx.Client, data: bytes, expected: dict[str, float]) -> Iterator[Check]:
    """Requests as SageMaker's and Vertex AI's documents shape them."""

    def same(predictions: Any) -> bool:
        return all(math.isclose(each["score"], expected[each["label"]], abs_tol=1e-6) for each in predictions)

    def ask(method: str, path: str, **more: Any) -> Any:
        return client.request(method, path, **more).raise_for_status()

    yield "SageMaker: GET /ping", partial(ask, "GET", "/ping"), lambda found: found.status_code == 200
    image = {"content": data, "headers": {"Content-Type": "application/x-image"}}
    yield "SageMaker: POST /invocations", lambda: ask("POST", "/invocations", **image).json()["predictions"], same
    yield "Vertex AI: GET health", partial(ask, "GET", "/vertex/health"), lambda found: found.status_code == 200
    instances = {"instances": [{"b64": base64.b64encode(data).decode()}] * 2, "parameters": {"top_k": 3}}
    predict = lambda: ask("POST", "/vertex/predict", json=instances).json()["predictions"]  # noqa: E731 - a call as the others
    yield "Vertex AI: POST predict, 2 instances", predict, lambda found: len(found) == 2 and all(map(same, found))


def ask_all(url: str, where: str, port: int, data: bytes) -> tuple[dict[str, float], Told]:
    """The native ranking, and a line for each call."""
    told = Told()
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        expected = native(client, data)
        labels = [each["label"] for each in client.get("/models/default").json()["labels"]]
        told.add("tritonclient.http", triton("http", where, data, expected, labels))
        told.add("tritonclient.grpc", triton("grpc", f"127.0.0.1:{port}", data, expected, labels))
        told.add("huggingface_hub", hugging_face(url, data, expected))
        told.add("as documented", platforms(client, data, expected))
    return expected, told


async def run(args: argparse.Namespace) -> int:
    data = args.photo.read_bytes() if args.photo else photographs(()).small[0]
    port = free_port()
    changes: dict[str, Any] = {"grpc_port": port, "precision": "float32", "device": "cpu", "open_admin": True}
    with serving(CHECKPOINT, **changes) as (service, _):
        where = "{}:{}".format(*address(service))
        expected, told = await asyncio.to_thread(ask_all, service.url, where, port, data)  # the clients wait in their own ways
    text = f"native: {_short(sorted(expected.items(), key=lambda each: -each[1])[:3])}\n\n{table(told.rows)}"
    publish("calls", "Every dialect, by its own client", text, {"rows": told.rows, "wrong": told.wrong}, args.output)
    return 1 if told.wrong else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls", description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, help="an image; without, one that is made here")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    finish(run(parser.parse_args()))


if __name__ == "__main__":
    main()
