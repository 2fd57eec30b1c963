"""The service on a Ray cluster of two nodes, under load all the time: it grows and shrinks, its model changes, a replica is
killed and a node taken away. What clients saw is counted; `app.client.Client` must have lost nothing.

The tests are stages of one cluster, in their order: a cluster takes longer to start than all of them.
"""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import model
from app.client import Classification, Client, ClientError
from tests.e2e import ray_cluster
from tests.e2e.bad_inputs import BODY_LIMIT, gif_frames
from tests.e2e.server import Server
from tests.images import encode, photograph

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BUNDLED = "bundled:cifar10"
OTHER = "other "  # before each label of the other checkpoint
SCALING = {
    "min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 0.5,
    "upscale_delay_s": 0.5, "downscale_delay_s": 4, "look_back_period_s": 2, "metrics_interval_s": 0.5,
}  # fmt: skip
QUICK = {f"RAY_SERVE_{who}_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5" for who in ("REPLICA", "HANDLE")}
CONNECTIONS, PAUSE_S = 8, 0.02  # enough for three replicas, and something is left of the processors for these to start
WITHIN_S = 100
PICTURES = [encode(photograph(size=(40 + i, 32))) for i in range(4)]  # told apart in the answers by their width


@dataclass
class Seen:
    """What clients got: by status or error, and the answers that were no right ones."""

    plain: Counter[str] = field(default_factory=Counter)
    client: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)  # that answered: "bundled" or "other"
    wrong: list[object] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Requests of plain connections that were not answered with a ranking."""
        return self.plain.total() - self.plain["200"]


@dataclass
class Cluster:
    """The cluster with the clients that never stop asking it."""

    orders: ray_cluster.Orders
    other: str  # a checkpoint that is told from the bundled one by its labels

    def post(self, data: bytes, http: httpx.Client) -> httpx.Response:
        return http.post("/classify", content=data, headers={"Content-Type": "image/jpeg"})

    @contextmanager
    def http(self) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.orders.url, timeout=30, trust_env=False) as http:
            yield http

    @contextmanager
    def load(self, connections: int = CONNECTIONS, pause_s: float = PAUSE_S) -> Iterator[Seen]:
        """So many plain connections, and one client that tries again, all the while, each with a pause between its requests."""
        seen, over = Seen(), threading.Event()
        with ThreadPoolExecutor(connections + 1) as pool:
            asking = [pool.submit(self._ask, i, seen, over, pause_s) for i in range(connections)]
            asking.append(pool.submit(self._ask_patiently, seen, over, pause_s))
            try:
                yield seen
            finally:
                over.set()
        for each in asking:
            each.result()
        assert seen.wrong == []
        assert set(seen.client) == {"answered"}  # nothing is lost for who tries again

    def _ask(self, number: int, seen: Seen, over: threading.Event, pause_s: float) -> None:
        data = PICTURES[number % len(PICTURES)]
        with self.http() as http:
            while not over.wait(pause_s):
                try:
                    answer = self.post(data, http)
                except httpx.TransportError as error:
                    seen.plain[type(error).__name__] += 1
                    continue
                seen.plain[str(answer.status_code)] += 1
                body = answer.json()
                if answer.status_code == 200:
                    labels = [each["label"] for each in body["predictions"]]
                    seen.models["other" if labels[0].startswith(OTHER) else "bundled"] += 1
                    if body["image"]["width"] != 40 + number % len(PICTURES) or len(labels) != 5:
                        seen.wrong.append(body)
                elif (answer.status_code, body["type"], answer.headers["retry-after"]) != (503, "/problems/not-ready", "1"):
                    seen.wrong.append(body)

    def _ask_patiently(self, seen: Seen, over: threading.Event, pause_s: float) -> None:
        with Client(self.orders.url, timeout_s=30) as client:
            while not over.wait(pause_s):
                try:
                    found = client.classify(PICTURES[0])
                except ClientError as error:
                    seen.client[repr(error)] += 1
                else:
                    seen.client["answered" if isinstance(found, Classification) and found.predictions else "wrong"] += 1

    def deploy(self, user_config: dict[str, Any], **variables: str) -> None:
        self.orders("deploy", variables, SCALING, user_config)

    def running(self, count: int) -> list[tuple[int, bool]]:
        """Wait until so many replicas run: (process, whether it is on the second node) of each."""
        state = self.orders.until(lambda state: len(state["running"]) == count, WITHIN_S)
        return [(pid, second) for pid, second in state["running"]]

    def metric(self, name: str, **labels: str) -> list[float]:
        """The sample of each replica, whichever of them is asked."""
        with self.http() as http:
            families = text_string_to_metric_families(http.get("/metrics").text)
        samples = [s for family in families for s in family.samples if s.name == name and labels.items() <= s.labels.items()]
        assert len({sample.labels["replica"] for sample in samples}) == len(samples)
        return [sample.value for sample in samples]

    def until_metric(self, wanted: list[float], name: str, **labels: str) -> None:
        """Wait until the samples are these: a replica tells the others every two seconds."""
        end = time.monotonic() + WITHIN_S
        while sorted(found := self.metric(name, **labels)) != wanted:
            assert time.monotonic() < end, found
            time.sleep(0.2)


def other_checkpoint(folder: Path) -> Path:
    """The bundled weights under other names of the classes: no graph has to be made for them."""
    bundled = Path(model.__path__[0]) / "checkpoints"
    card = json.loads((bundled / "cifar10.json").read_text())
    del card["golden"]
    card["labels"] = [OTHER + label for label in card["labels"]]
    folder.mkdir()
    shutil.copy(bundled / "cifar10.safetensors", folder / "other.safetensors")
    (folder / "other.json").write_text(json.dumps(card))
    return folder / "other.safetensors"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("ray")
    with ray_cluster.running(QUICK, folder / "log.txt") as orders:
        made = Cluster(orders, str(other_checkpoint(folder / "models")))
        made.deploy({"checkpoint": BUNDLED}, SKNET_DEVICE="cpu", SKNET_MAX_BODY_BYTES=str(BODY_LIMIT))
        orders.until(lambda state: state["application"] == "RUNNING", WITHIN_S)
        yield made


def exchange(url: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str | None, bytes, str | None]:
    """(status, media type, body, id) of one request by the standard library, which sends it as it is told to."""
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named, encode_chunked="Transfer-Encoding" in named)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read(), ",".join(answer.headers.get_all("X-Request-ID", []))
    finally:
        connection.close()


JPEG = {"Content_Type": "image/jpeg"}
IN_PIECES = {**JPEG, "Transfer_Encoding": "chunked"}
REQUESTS: list[tuple[str, str, Any, dict[str, str]]] = [
    ("POST", "/classify", PICTURES[0], JPEG),
    ("POST", "/classify?top_k=2", [PICTURES[0][:50], PICTURES[0][50:]], IN_PIECES),
    ("POST", "/classify", b"no image", JPEG),
    ("POST", "/classify", gif_frames(2), {"Content_Type": "image/gif"}),  # decoded in a process of its own
    ("POST", "/classify", b"", {"Content_Type": "text/plain"}),
    ("POST", "/classify", b"x" * (BODY_LIMIT + 1), JPEG),
    ("POST", "/classify", [b"x" * 70_000] * (BODY_LIMIT // 70_000 + 1), IN_PIECES),
    ("POST", "/classify?top_k=0", PICTURES[0], JPEG),
    ("POST", "/classify", PICTURES[0], {**JPEG, "X_Timeout_Ms": "soon"}),
    ("POST", "/models/default/load", b"{}", {"Content_Type": "application/json"}),
    ("HEAD", "/readyz", None, {}),
    ("GET", "/models/default%0A", None, {}),
    ("GET", "/no%2Fsuch", None, {}),
    ("PUT", "/classify", None, {}),
    ("GET", "/problems/not-ready", None, {}),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: f"{each[0]} {each[1]} {','.join(each[3].values())}")
def test_answers_are_those_of_the_plain_service(cluster: Cluster, server: Server, request_: tuple[Any, ...]) -> None:
    method, path, body, headers = request_
    named = {**headers, "X_Request_ID": "a-request"}
    plain, ray = (exchange(url, method, path, body, **named) for url in (server.url, cluster.orders.url))
    assert ray[:2] == plain[:2]
    assert ray[3] == plain[3] == "a-request"  # once
    if plain[0] == 200 and method == "POST":  # but for the times in it, and the last digits of the scores
        ours, theirs = (httpx.Response(200, content=each[2]).json() for each in (ray, plain))
        assert [p["label"] for p in ours["predictions"]] == [p["label"] for p in theirs["predictions"]]
        assert ours["image"] == theirs["image"]
        assert ours["model"]["digest"] == theirs["model"]["digest"]
    else:
        assert ray[2] == plain[2]


def test_it_grows_from_one_replica_to_three_and_counts_each_request_once(cluster: Cluster) -> None:
    cluster.running(1)
    before = sum(cluster.metric("sknet_requests_total", route="/classify", status="200"))
    with cluster.load() as seen:
        cluster.running(3)
        time.sleep(1)  # all three are asked
    assert seen.failed == 0
    assert seen.models.keys() == {"bundled"}
    cluster.until_metric([1, 1, 1], "sknet_ready_workers")
    end = time.monotonic() + WITHIN_S
    while (counted := sum(cluster.metric("sknet_requests_total", route="/classify", status="200"))) != (
        before + seen.plain["200"] + seen.client["answered"]
    ):
        assert time.monotonic() < end, counted
        time.sleep(0.2)


def test_another_checkpoint_takes_the_place_of_the_first(cluster: Cluster) -> None:
    replicas = cluster.running(3)
    with cluster.load() as seen:
        cluster.deploy({"checkpoint": cluster.other})
        cluster.until_metric([2, 2, 2], "sknet_model_loads_total", outcome="loaded")
    assert seen.failed == 0
    assert seen.models.keys() == {"bundled", "other"}
    assert cluster.running(3) == replicas  # none was started anew


@pytest.mark.parametrize(("number", "user_config"), [(1, {"checkpoint": "/nowhere/weights.safetensors"}), (2, {"chekpoint": ""})])
def test_a_user_config_that_cannot_be_served_changes_nothing(cluster: Cluster, number: int, user_config: dict[str, str]) -> None:
    replicas = cluster.running(3)
    with cluster.load() as seen:
        cluster.deploy(user_config)
        cluster.until_metric([number] * 3, "sknet_model_loads_total", outcome="refused")
    assert seen.failed == 0
    assert seen.models.keys() == {"other"}
    assert cluster.running(3) == replicas


def test_a_replica_is_killed(cluster: Cluster) -> None:
    """The one that takes its place finds a user_config that cannot be served, and serves what the others do."""
    before = cluster.running(3)
    killed = before[0][0]
    with cluster.load() as seen:
        cluster.orders("kill", killed)
        cluster.orders.until(lambda state: len(state["running"]) == 3 and killed not in dict(state["running"]), WITHIN_S)
        time.sleep(1)
    assert seen.models.keys() == {"other"}
    assert set(seen.plain) <= {"200", "503"}
    assert seen.failed <= 2 * CONNECTIONS


def test_a_node_is_taken_away(cluster: Cluster) -> None:
    assert {second for _, second in cluster.running(3)} == {False, True}
    with cluster.load() as seen:
        cluster.orders("remove_node")
        state = cluster.orders.until(lambda state: [each[1] for each in state["running"]] == [False, False], WITHIN_S)
        time.sleep(1)
    assert len(state["running"]) == 2
    assert seen.models.keys() == {"other"}
    assert set(seen.plain) <= {"200", "503"}
    assert seen.failed <= 2 * CONNECTIONS


def test_it_shrinks_to_one_replica(cluster: Cluster) -> None:
    with cluster.load(1, pause_s=0.5) as seen:
        cluster.running(1)
    assert seen.failed == 0
    assert seen.plain["200"] > 0
