"""The real client library against a hub on loopback, each time in a fresh interpreter: it reads HF_* when imported."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from tests.model.hub_server import HubServer, Repository, sha256

CONFIG = {"architecture": "skresnet18", "num_classes": 3, "label_names": ["ant", "bee", "cat"]}
CLIENT = """
import json, pathlib, sys, time
time.sleep = lambda seconds: None  # the library's growing pauses before it gives a hub up, 23 s in all
from model.checkpoint import resolve
from model.errors import ModelError
def refuse(*_, **__): raise PermissionError(13, "Permission denied")
if "--no-unlink" in sys.argv: pathlib.Path.unlink = refuse
answers = []
for arguments in json.loads(sys.argv[1]):
    try:
        found = resolve(**arguments)
        answer = {"path": str(found.path), "digest": found.digest, "labels": [label.name for label in found.labels][:3],
                  "classes": len(found.labels), "accuracy": dict(found.accuracy), "licence": found.licence}
    except ModelError as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    answers.append(answer)
from huggingface_hub import constants
for answer in answers:
    answer |= {"torch": "torch" in sys.modules, "telemetry": not constants.HF_HUB_DISABLE_TELEMETRY}
print(json.dumps(answers))
"""


def weights(classes: int = 3, seed: float = 0) -> bytes:
    return save({"fc.weight": np.full((classes, 512), seed, np.float32), "fc.bias": np.zeros(classes, np.float32)})


def repository(data: bytes = b"", **more: Any) -> Repository:
    return Repository({"main": {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": data or weights()}}, **more)


class Client:
    """`ask` resolves a reference in an interpreter of its own and returns what came of it."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.home = folder / "home"
        self.endpoint = endpoint

    def environment(self, **more: str) -> dict[str, str]:
        # Nothing else inherited: proxies and tokens of the machine must not matter.
        measuring = {name: value for name, value in os.environ.items() if name.startswith("COV")}
        return {
            **measuring,
            "PATH": os.defpath,
            "HF_HOME": str(self.home),
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_ETAG_TIMEOUT": "2",
            **more,
        }

    def ask(self, reference: str, *, environment: dict[str, str] | None = None, **arguments: object) -> dict[str, Any]:
        (answer,) = self.ask_all([{"reference": reference, **arguments}], environment=environment)
        return answer

    def ask_all(
        self, questions: list[dict[str, Any]], *options: str, environment: dict[str, str] | None = None
    ) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, json.dumps(questions), *options],
            env=self.environment(**(environment or {})),
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        answers: list[dict[str, Any]] = json.loads(done.stdout)
        return answers


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(ants__bees=repository()) as server:
        yield server


@pytest.fixture
def client(tmp_path: Path, hub: HubServer) -> Client:
    return Client(tmp_path, hub.url)


def test_downloads_verifies_and_caches_without_torch_or_telemetry(client: Client, hub: HubServer) -> None:
    first = client.ask("hf-hub:ants/bees")
    assert first["digest"] == f"sha256:{sha256(weights())}"
    assert Path(first["path"]).is_relative_to(client.home)
    assert (first["labels"], first["torch"], first["telemetry"]) == (["ant", "bee", "cat"], False, False)
    assert hub.downloads() == ["config.json", "model.safetensors"]

    assert client.ask("hf-hub:ants/bees") == first
    assert hub.downloads() == ["config.json", "model.safetensors"]  # nothing came a second time


def test_the_cache_folder_can_be_chosen(client: Client, tmp_path: Path) -> None:
    found = client.ask("hf-hub:ants/bees", cache_dir=str(tmp_path / "mine"))
    assert Path(found["path"]).is_relative_to(tmp_path / "mine")


def test_a_cache_that_cannot_be_written(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = client.ask("hf-hub:ants/bees", cache_dir=str(tmp_path / "file" / "cache"))
    assert refused["error"] == "CheckpointNotFound"
    assert refused["text"] == "hf-hub:ants/bees cannot be kept in the cache: Not a directory"


def test_serves_from_the_cache_when_the_hub_is_gone(tmp_path: Path) -> None:
    with HubServer(ants__bees=repository()) as hub:
        client = Client(tmp_path, hub.url)
        online = client.ask("hf-hub:ants/bees")
    assert client.ask("hf-hub:ants/bees", environment={"HF_HUB_OFFLINE": "1"}) == online
    assert client.ask("hf-hub:ants/bees", offline=True) == online
    assert client.ask("hf-hub:ants/bees") == online  # not told to stay offline, but alone


def test_offline_asks_the_hub_nothing(client: Client, hub: HubServer) -> None:
    client.ask("hf-hub:ants/bees")
    before = list(hub.requests)
    assert "error" not in client.ask("hf-hub:ants/bees", offline=True)
    assert hub.requests == before


def test_a_revision_has_its_own_weights(tmp_path: Path) -> None:
    config = json.dumps(CONFIG).encode()
    files = {name: {"config.json": config, "model.safetensors": weights(seed=s)} for s, name in enumerate(("main", "v1.0"))}
    with HubServer(ants__bees=Repository(files)) as hub:
        found = Client(tmp_path, hub.url).ask_all([{"reference": f"hf-hub:ants/bees{revision}"} for revision in ("@v1.0", "")])
    assert [each["digest"] for each in found] == [f"sha256:{sha256(weights(seed=seed))}" for seed in (1, 0)]


def test_pickled_weights_are_the_second_choice(tmp_path: Path) -> None:
    files = {"config.json": json.dumps(CONFIG).encode(), "pytorch_model.bin": b"not read while resolving"}
    with HubServer(ants__bees=Repository({"main": files})) as hub:
        client = Client(tmp_path, hub.url)
        found = client.ask("hf-hub:ants/bees")
        assert Path(found["path"]).name == "pytorch_model.bin"
    assert client.ask("hf-hub:ants/bees", offline=True) == found


def test_a_registry_name_leads_to_its_repository(tmp_path: Path) -> None:
    config = json.dumps({"architecture": "skresnet18", "num_classes": 1000}).encode()
    files = {"config.json": config, "model.safetensors": weights(1000)}
    with HubServer(**{"timm__skresnet18.ra_in1k": Repository({"main": files})}) as hub:
        questions = [{"reference": "skresnet18.ra_in1k"}, {"reference": "skresnet18.ra_in1k", "sha256": "0" * 64}]
        found, refused = Client(tmp_path, hub.url).ask_all(questions)
    assert found["labels"][0] == "tench, Tinca tinca"
    assert (found["classes"], found["licence"]) == (1000, "apache-2.0")
    assert found["accuracy"] == {"top1": 73.020, "top5": 91.172}
    assert refused["error"] == "CheckpointCorrupt"
    assert "not the SHA-256 asked for" in refused["text"]


def test_weights_that_are_not_what_the_hub_says_are_refused_and_fetched_anew(client: Client, hub: HubServer) -> None:
    hub.repositories["ants/bees"].told = {"model.safetensors": "f" * 64}
    refused = client.ask("hf-hub:ants/bees")
    assert refused["error"] == "CheckpointCorrupt"
    assert "f" * 64 in refused["text"]
    assert sha256(weights()) in refused["text"]
    assert not list(client.home.glob("hub/models--*/snapshots/*/model.safetensors"))


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_DISABLE_SYMLINKS": "1"}])
def test_a_cached_file_is_checked_against_the_recorded_hash(client: Client, hub: HubServer, environment: dict[str, str]) -> None:
    cached = Path(client.ask("hf-hub:ants/bees", environment=environment)["path"])
    cached.write_bytes(weights(seed=9))

    asked = {"reference": "hf-hub:ants/bees"}
    told = client.ask_all([asked], environment={**environment, "HF_HUB_OFFLINE": "1"})
    told += client.ask_all([{**asked, "offline": True}], environment=environment)
    for offline in told:
        assert offline["error"] == "CheckpointCorrupt"
        assert f"delete {cached}" in offline["text"]
    assert cached.exists()

    refused, again = client.ask_all([asked, asked], environment=environment)
    assert "deleted from the cache" in refused["text"]
    assert again["digest"] == f"sha256:{sha256(weights())}"
    assert hub.downloads().count("model.safetensors") == 2


def test_a_damaged_record_is_no_record(client: Client, hub: HubServer) -> None:
    damages = {"bees": b"", "wasps": b"abc", "flies": b"\xff" * 64, "moths": b"{}\n" + b"0" * 64}
    hub.repositories |= {f"ants/{name}": repository() for name in damages}
    asked, copies = [{"reference": f"hf-hub:ants/{name}"} for name in damages], {"HF_HUB_DISABLE_SYMLINKS": "1"}
    whole = client.ask_all(asked, environment=copies)
    records = {}
    for name, damage in damages.items():
        (records[name],) = client.home.glob(f"hub/models--ants--{name}/.sha256/*/*")
        assert records[name].read_bytes() == f"{sha256(weights())}\n".encode()
        records[name].write_bytes(damage)
    assert client.ask_all(asked, environment={**copies, "HF_HUB_OFFLINE": "1"}) == whole
    for name, damage in damages.items():
        assert records[name].read_bytes() == damage  # nobody to ask what belongs in it
    assert client.ask_all(asked, environment=copies) == whole
    for record in records.values():
        assert record.read_bytes() == f"{sha256(weights())}\n".encode()
        assert [path.name for path in record.parent.iterdir()] == [record.name]


def test_a_hub_that_corrects_itself_is_believed(client: Client, hub: HubServer) -> None:
    hub.repositories["ants/bees"].told = {"model.safetensors": "f" * 64}
    assert client.ask("hf-hub:ants/bees")["error"] == "CheckpointCorrupt"
    hub.repositories["ants/bees"].told = {}
    assert client.ask("hf-hub:ants/bees")["digest"] == f"sha256:{sha256(weights())}"


def test_a_damaged_file_that_cannot_be_deleted(client: Client) -> None:
    cached = Path(client.ask("hf-hub:ants/bees")["path"])
    cached.write_bytes(weights(seed=9))
    (refused,) = client.ask_all([{"reference": "hf-hub:ants/bees"}], "--no-unlink")
    assert refused["error"] == "CheckpointCorrupt"
    assert refused["text"].endswith(
        f"it cannot be deleted from the cache (Permission denied), delete {cached} and download it again"
    )


def test_each_failure_has_its_sentence(client: Client, hub: HubServer) -> None:
    config = json.dumps(CONFIG).encode()
    hub.repositories |= {
        "ants/bare": Repository({"main": {"model.safetensors": weights()}}),
        "ants/weightless": Repository({"main": {"config.json": config}}),
        "ants/gated": Repository({}, gated=True),
        "ants/foreign": Repository({}, foreign=True),
        "ants/broken": Repository({}, broken=True),
    }
    expected = {
        "hf-hub:ants/none": "no such repository",
        "hf-hub:ants/bees@v9": "no such revision",
        "hf-hub:ants/bare": "lacks config.json",
        "hf-hub:ants/weightless": "weights named model.safetensors or pytorch_model.bin",
        "hf-hub:ants/gated": "HF_TOKEN",
        "hf-hub:ants/foreign": "HF_ENDPOINT",
        "hf-hub:ants/broken": "status 503",
        "hf-hub:ants/..": "no name that the hub allows",
    }
    answers = client.ask_all([{"reference": reference} for reference in expected])
    for (reference, says), answer in zip(expected.items(), answers, strict=True):
        assert answer["error"] == "CheckpointNotFound", reference
        assert answer["text"].startswith(reference)
        assert says in answer["text"]
        assert "\n" not in answer["text"]


def test_without_network_and_cache_the_text_says_why(tmp_path: Path) -> None:
    with HubServer() as hub:
        client = Client(tmp_path, hub.url)
    offline = client.ask("hf-hub:ants/bees", environment={"HF_HUB_OFFLINE": "1"})
    assert offline["error"] == "CheckpointNotFound"
    assert offline["text"] == "hf-hub:ants/bees is not in the cache, and offline mode forbids asking the hub"
    alone = client.ask("hf-hub:ants/bees")
    assert alone["text"] == "hf-hub:ants/bees is not in the cache, and the hub cannot be reached"


def test_a_download_shows_its_progress_on_a_terminal(client: Client) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    arguments = json.dumps([{"reference": "hf-hub:ants/bees"}])
    subprocess.run(
        [sys.executable, "-c", CLIENT, arguments], env=client.environment(), stdout=subprocess.DEVNULL, stderr=theirs, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "model.safetensors: 100%" in shown
