"""The engine of processors inside the real service: started under load, without torch, from a graph that may be damaged."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e import checkpoints
from tests.e2e.bad_inputs import jpeg
from tests.e2e.server import START_S, serve

pytestmark = pytest.mark.e2e
CLIENTS, EACH = 16, 5


def ask_until_answered(url: str, data: bytes, results: list[str], stop: threading.Event) -> None:
    """Ask from before it is ready until `EACH` images are classified."""
    answered = 0
    with httpx.Client(base_url=url, timeout=60, trust_env=False, verify=False) as client:
        while answered < EACH and not stop.is_set():
            answer = client.post("/classify", content=data, headers={"Content-Type": "image/jpeg"})
            if answer.status_code == 200:
                answered += 1
                results.append(answer.json()["predictions"][0]["label"])
            elif answer.status_code == 503:
                time.sleep(0.01)
            else:
                raise AssertionError(answer.text)


@pytest.mark.usefixtures("server")  # by which the graph is there, and the first inferences come soon
@pytest.mark.parametrize("start", [1, 2, 3])
def test_started_under_load_it_answers(start: int) -> None:
    """OpenVINO's first inferences, come together in several threads, could deadlock against the interpreter's lock."""
    with serve(wait=False) as server:
        data, results = jpeg(), list[str]()
        stop = threading.Event()
        clients = [threading.Thread(target=ask_until_answered, args=(server.url, data, results, stop)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(START_S)
        stop.set()
        assert len(results) == CLIENTS * EACH
        assert len(set(results)) == 1
        assert server.stop() == 0


def test_the_process_that_serves_holds_no_torch() -> None:
    with serve(SKNET_DEVICE="cpu") as server, server.client() as client:
        assert client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"}).status_code == 200
        model = client.get("/models/default").json()
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert model["engine"]["value"] == "openvino"
    assert 0 < model["deviation"] < 0.1
    assert model["images_per_second"] > 0
    assert "openvino" in maps
    assert "libtorch" not in maps


def _graphs(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "graphs").iterdir() if path.is_dir())


def test_a_damaged_graph_is_remade_at_the_next_start(tmp_path: Path) -> None:
    file = checkpoints.write(tmp_path, "ants", {"ant": 0.6, "bee": 0.3, "cat": 0.1})
    checkpoints.export_into(tmp_path, file)

    def start_and_ask() -> list[str]:
        variables = {"SKNET_DEVICE": "cpu", "SKNET_CHECKPOINT": str(file), "SKNET_CACHE_DIR": str(tmp_path)}
        with serve(wait=True, **variables) as server, server.client() as client:
            answer = client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"})
            assert answer.json()["predictions"][0]["label"] == "ant"
            return server.lines

    (graph,) = _graphs(tmp_path)
    weights = graph / "graph.bin"
    weights.write_bytes(weights.read_bytes()[:-100])
    lines = start_and_ask()
    assert any("graph.bin is damaged" in line for line in lines)
    assert any(f"exporting {file}" in line for line in lines)
    assert not any("exporting" in line or "is damaged" in line for line in start_and_ask())
    assert _graphs(tmp_path) == [graph]
