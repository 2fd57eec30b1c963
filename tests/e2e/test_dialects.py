"""One service, asked by Hugging Face's own client, and as SageMaker and Vertex AI document it: one photograph, one answer."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.server import Server, environment, serve
from tests.images import photograph

pytestmark = pytest.mark.e2e

KEY = "a-key-for-the-dialects"
CLASSES = 10
HEALTH, PREDICT = "/v1/endpoints/7/deployedModels/8", "/v1/endpoints/7/deployedModels/8:predict"
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"

# In a process of its own, since the library reads its environment when it is imported.
CALLS = """
import json, sys
from pathlib import Path
from PIL import Image
from huggingface_hub import InferenceClient

url, path, key = sys.argv[1:]
data = Path(path).read_bytes()

def told(image, key=key, path="/hf", **wanted):
    client = InferenceClient(url + path, token=key)
    try:
        return [[each.label, each.score] for each in client.image_classification(image, **wanted)]
    except Exception as error:
        return f"{type(error).__name__}: {error} {getattr(error, 'response', None) and error.response.text}"

print(json.dumps({
    "bytes": told(data),
    "path": told(path),
    "root": told(data, path=""),
    "model": [[e.label, e.score] for e in InferenceClient(token=key).image_classification(data, model=url + "/hf")],
    "top_k": told(data, top_k=2),
    "all": told(path, top_k=1000),
    "softmax": told(data, function_to_apply="softmax"),
    "sigmoid": told(data, function_to_apply="sigmoid", top_k=10),
    "none": told(data, function_to_apply="none", top_k=10),
    "no image": told(b"this is no image"),
    "no image, top_k": told(b"this is no image", top_k=2),
    "top_k of 0": told(data, top_k=0),
    "wrong key": told(data, key="a-key-that-nobody-has"),
}))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(
        SKNET_API_KEYS=f"caller:predict:{KEY}",
        SKNET_DIALECTS="v2,huggingface,huggingface-root,sagemaker,vertex",
        AIP_HTTP_PORT="1",  # a flag says otherwise
        AIP_HEALTH_ROUTE=HEALTH,
        AIP_PREDICT_ROUTE=PREDICT,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as connected:
        connected.headers["X-API-Key"] = KEY
        yield connected


@pytest.fixture(scope="module")
def photo() -> bytes:
    out = io.BytesIO()
    photograph().save(out, "JPEG", quality=92)
    return out.getvalue()


@pytest.fixture(scope="module")
def native(client: httpx.Client, photo: bytes) -> dict[str, Any]:
    answer = client.post(f"/classify?top_k={CLASSES}", content=photo, headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    assert document["predictions"][0]["label"] == "cat"
    return document


@pytest.fixture(scope="module")
def hub(server: Server, photo: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client got, by the name of the call."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "photo.jpg").write_bytes(photo)
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HOME": str(folder), "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", CALLS, server.url, str(folder / "photo.jpg"), KEY],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(**quiet),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("call", "count"),
    [("bytes", 5), ("path", 5), ("root", 5), ("model", 5), ("softmax", 5), ("top_k", 2), ("all", CLASSES)],
)
def test_the_hubs_client_gets_the_same_scores(hub: dict[str, Any], native: dict[str, Any], call: str, count: int) -> None:
    assert hub[call] == [[p["label"], p["score"]] for p in native["predictions"][:count]]


def test_the_hubs_client_gets_other_scores_where_it_asks_for_them(hub: dict[str, Any], native: dict[str, Any]) -> None:
    labels = [p["label"] for p in native["predictions"]]
    logits, shares = [score for _, score in hub["none"]], [score for _, score in hub["sigmoid"]]
    assert [label for label, _ in hub["none"]] == [label for label, _ in hub["sigmoid"]] == labels
    assert min(logits) < 0 < max(logits)
    assert all(0 < share < 1 and (share > 0.5) == (logit > 0) for share, logit in zip(shares, logits, strict=True))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("no image", "422"), ("no image, top_k", "422"), ("top_k of 0", "it may be a whole number from 1 to 10"),
        ("wrong key", "this key is not known here"),
    ],
)  # fmt: skip
def test_the_hubs_client_raises_with_our_words(hub: dict[str, Any], call: str, words: str) -> None:
    assert "Error" in hub[call].partition(":")[0]
    assert words in hub[call]
    assert '{"error":' in hub[call]


@pytest.mark.parametrize("media", ["image/jpeg", "application/x-image", "application/octet-stream", None])
def test_sagemaker_gets_the_same_answer(client: httpx.Client, photo: bytes, native: dict[str, Any], media: str | None) -> None:
    assert httpx.get(client.base_url.join("/ping"), trust_env=False, timeout=2).status_code == 200
    headers = {"Accept": "*/*", ATTRIBUTES: f"top_k={CLASSES}"} | ({} if media is None else {"Content-Type": media})
    answer = client.post("/invocations", content=photo, headers=headers)
    assert (answer.status_code, answer.json()) == (200, native)


def test_sagemaker_gets_the_same_answer_to_json(client: httpx.Client, photo: bytes, native: dict[str, Any]) -> None:
    text = base64.b64encode(photo).decode()
    answer = client.post("/invocations", json={"image": text}, headers={ATTRIBUTES: f"trace=5,top_k={CLASSES}"})
    assert (answer.status_code, answer.json()) == (200, native)


def test_vertex_gets_the_same_ranking_where_it_said(client: httpx.Client, photo: bytes, native: dict[str, Any]) -> None:
    assert httpx.get(client.base_url.join(HEALTH), trust_env=False, timeout=10).status_code == 200
    image = {"b64": base64.b64encode(photo).decode()}
    answer = client.post(PREDICT, json={"instances": [image, {"image": image}], "parameters": {"top_k": float(CLASSES)}})
    assert (answer.status_code, answer.json()) == (200, {"predictions": [native["predictions"]] * 2})
    answer = client.post(PREDICT, json={"instances": [image, {"b64": "AAAA"}]})
    assert (answer.status_code, answer.json()["parameter"]) == (422, "instances[1]")
    assert client.post("/vertex/predict", json={}).status_code == 404
