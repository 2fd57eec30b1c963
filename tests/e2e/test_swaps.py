"""Another model in a running service: nobody fails, no answer mixes two models, and what cannot serve changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.bench.client import Connection, post
from tests.app.asgi import until
from tests.e2e import checkpoints
from tests.e2e.bad_inputs import jpeg
from tests.e2e.server import Server, serve

pytestmark = pytest.mark.e2e

CLIENTS, SWAPS = 20, 5
ANTS = {"ant": 0.6, "bee": 0.3, "cat": 0.1}
DOGS = {"dog": 0.7, "elk": 0.2, "fox": 0.06, "gnu": 0.04}
LOAD = "/models/default/load"
GROWN_MIB = 48  # more than that over a few swaps of a model this small, and the old ones are not given back


@dataclass(frozen=True)
class Folder:
    """Two checkpoints in a model folder, and a cache with their graphs."""

    models: Path
    cache: Path

    def serve(self, checkpoint: str, *arguments: str) -> AbstractContextManager[Server]:
        """The service with one of them."""
        variables = {
            "SKNET_CHECKPOINT": str(self.models / checkpoint),
            "SKNET_MODEL_DIR": str(self.models),
            "SKNET_CACHE_DIR": str(self.cache),
            "SKNET_OPEN_ADMIN": "true",
            "SKNET_DEVICE": "cpu",
        }
        return serve(*arguments, wait=True, **variables)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("swaps")
    made = Folder(root / "models", root / "cache")
    files = [checkpoints.write(made.models, name, scores) for name, scores in (("ants", ANTS), ("dogs", DOGS))]
    checkpoints.export_into(made.cache, *files)
    return made


@dataclass
class Seen:
    """What all clients got."""

    statuses: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)  # by what the digest belongs to
    mixed: list[object] = field(default_factory=list)


async def ask(server: Server, digests: dict[str, dict[str, float]], seen: Seen, over: asyncio.Event) -> None:
    """Post without a pause; hold every answer against what the model of its digest says."""
    where, data = urlsplit(server.url), jpeg()
    host, port = str(where.hostname), int(str(where.port))
    connection, head = Connection(host, port), post(host, "/classify", "image/jpeg", len(data))
    while not over.is_set():
        answer = await connection.ask(head, data)
        seen.statuses[answer.code] += 1
        if not answer.ok:
            continue
        body = json.loads(answer.body)
        scores, found = digests[body["model"]["digest"]], body["predictions"]
        seen.models[next(iter(scores))] += 1
        if [p["label"] for p in found] != list(scores) or any(abs(p["score"] - scores[p["label"]]) > 0.02 for p in found):
            seen.mixed.append(body)
    connection.close()


def rss_mib(pids: list[int]) -> float:
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") for pid in pids) / 2**20


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "not within 60 s"
        time.sleep(0.05)


def digests_over(server: Server, count: int = 6) -> set[str]:
    """Of several new connections, which go to the workers in turn."""
    found = set()
    for _ in range(count):
        with server.client() as client:
            answer = client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"})
            assert answer.status_code == 200, answer.text
            found.add(answer.json()["model"]["digest"])
    return found


def load(server: Server, checkpoint: str | None) -> httpx.Response:
    with server.client(60) as client:
        return client.post(LOAD, json={"checkpoint": checkpoint} if checkpoint else {})


def serving_lines(server: Server) -> list[str]:
    return [str(r["message"]) for r in server.records() if str(r.get("message", "")).startswith("serving ")]


@pytest.fixture(scope="module", params=[1, 2], ids=["one", "workers"])
def server(request: pytest.FixtureRequest, folder: Folder) -> Iterator[Server]:
    with folder.serve("ants.safetensors", "--workers", str(request.param)) as running:
        ready = f"{request.param - 1} is ready" if request.param > 1 else "ready:"
        wait_for(lambda: any(ready in line for line in running.lines))
        yield running


def workers(server: Server) -> list[int]:
    return [
        int(str(r["message"]).split("[")[1][:-1]) for r in server.records() if "server process [" in str(r.get("message", ""))
    ]


def test_under_load_nobody_fails_and_nothing_is_mixed(server: Server) -> None:
    digests = {}
    for name, scores in (("ants", ANTS), ("dogs", DOGS)):
        digests[load(server, f"{name}.safetensors").json()["digest"]] = scores
    assert len(digests) == 2

    async def run() -> Seen:
        seen, over = Seen(), asyncio.Event()
        clients = [asyncio.create_task(ask(server, digests, seen, over)) for _ in range(CLIENTS)]
        before = rss_mib(workers(server))
        for turn in range(SWAPS):
            answer = await asyncio.to_thread(load, server, ("ants.safetensors", "dogs.safetensors")[turn % 2])
            assert answer.status_code == 200, answer.text
            sent = seen.statuses.total()
            await until(lambda: seen.statuses.total() >= sent + CLIENTS, 30)  # noqa: B023 - waited for right here
        server.process.send_signal(signal.SIGHUP)
        lines = len(serving_lines(server))
        await until(lambda: len(serving_lines(server)) >= lines + len(workers(server)), 60)
        await asyncio.sleep(0.2)
        over.set()
        await asyncio.gather(*clients)
        assert rss_mib(workers(server)) - before < GROWN_MIB * len(workers(server))
        return seen

    seen = asyncio.run(run())
    assert set(seen.statuses) == {"200"}
    assert seen.mixed == []
    assert set(seen.models) == {"ant", "dog"}
    with server.client() as client:
        text = client.get("/metrics").text
    loaded = (SWAPS + 4) * len(workers(server))  # the first, two for the digests, one by SIGHUP
    assert f'sknet_model_loads_total{{outcome="loaded"}} {loaded}.0' in text
    assert text.count("sknet_model_info{") == 1


def test_a_file_that_was_replaced_is_loaded_by_sighup_and_a_damaged_one_is_not(server: Server, folder: Folder) -> None:
    (before,) = digests_over(server)
    file = folder.models / "ants.safetensors"
    kept = [(path, path.read_bytes()) for path in (file, file.with_suffix(".json"))]
    try:
        for suffix in (".safetensors", ".json"):
            shutil.copy(folder.models / f"dogs{suffix}", file.with_suffix(suffix))
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: before not in digests_over(server, 2))
        (after,) = digests_over(server)
        assert after != before
        file.write_bytes(b"\0" * 100)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: any("cannot serve" in line for line in server.lines))
        assert digests_over(server) == {after}
        assert load(server, None).status_code == 422
    finally:
        for path, content in kept:
            path.write_bytes(content)
    assert load(server, None).status_code == 200
    assert digests_over(server) == {before}


def test_a_worker_that_comes_back_serves_what_is_current_or_nothing(server: Server) -> None:
    if len(workers(server)) == 1:  # one process has nobody to bring it back: it is unloaded and loaded only
        with server.client() as client:
            assert client.post("/models/default/unload").json()["state"] == "unloaded"
            assert client.get("/readyz").status_code == 503
        assert load(server, "dogs.safetensors").status_code == 200
        assert len(digests_over(server)) == 1
        return
    digest = load(server, "dogs.safetensors").json()["digest"]
    assert digests_over(server) == {digest}
    os.kill(workers(server)[1], signal.SIGKILL)
    wait_for(lambda: sum("worker 1 is ready" in line for line in server.lines) == 2)
    assert digests_over(server) == {digest}
    with server.client() as client:
        assert client.post("/models/default/unload").status_code == 200
    os.kill(workers(server)[-1], signal.SIGKILL)
    wait_for(lambda: sum("worker 1 is ready" in line for line in server.lines) == 3)
    for _ in range(4):
        with server.client() as client:
            assert client.get("/readyz").json()["reasons"] == ["the model was unloaded"]
    assert load(server, None).status_code == 200
    assert len(digests_over(server)) == 1


def test_the_service_ends_while_it_loads(server: Server) -> None:
    """The last one: it ends the service that the others ask."""

    async def run() -> httpx.Response:
        before = sum("beside what serves" in line for line in server.lines)
        asking = asyncio.create_task(asyncio.to_thread(load, server, "ants.safetensors"))
        await until(lambda: sum("beside what serves" in line for line in server.lines) > before, 30)
        server.process.send_signal(signal.SIGTERM)
        return await asking

    answer = asyncio.run(run())
    assert answer.status_code in (200, 503)  # it may have been quick
    assert server.process.wait(30) == 0


def test_what_cannot_serve_changes_nothing(folder: Folder, tmp_path: Path) -> None:
    bad = checkpoints.damage(folder.models, folder.models / "ants.safetensors")
    with folder.serve("ants.safetensors", "--engine", "eager", "--threads", "1") as server, server.client(60) as client:
        before = client.get("/models/default").json()
        for name, says in bad.items():
            answer = client.post(LOAD, json={"checkpoint": name})
            assert (answer.status_code, answer.json()["type"]) == (422, "/problems/checkpoint-refused"), (name, answer.text)
            assert says in answer.json()["detail"], name
            found = client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"}).json()
            assert found["model"]["digest"] == before["digest"]
            assert found["predictions"][0]["label"] == "ant"
        assert client.get("/readyz").status_code == 200
        assert client.post(LOAD, json={"checkpoint": "dogs.safetensors"}).status_code == 200
        found = client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"}).json()
        assert found["predictions"][0]["label"] == "dog"
    assert not Path("unpickled").exists()
    assert not any("Traceback" in line for line in server.lines)
