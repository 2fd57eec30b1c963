"""The service on a Ray cluster of two nodes, under load all the time: it grows and shrinks, its model changes, a replica is
killed and a node taken away. What clients saw is counted; `app.client.Client` must have lost nothing.

The tests are stages of one cluster, in their order: a cluster takes longer to start than all of them.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.client import Classification, Client, ClientError
from tests.e2e import checkpoints, ray_cluster
from tests.e2e.server import Server
from tests.images import encode, photograph

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

BODY_LIMIT = 1_000_000
BUNDLED = "bundled:cifar10"
DOGS = {"dog": 0.7, "elk": 0.2, "fox": 0.06, "gnu": 0.04}
SCALING = {
    "min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 2,
    "upscale_delay_s": 0.5, "downscale_delay_s": 2, "look_back_period_s": 2,
}  # fmt: skip
FEW, MANY = 1, 12  # plain connections: fewer and more than one replica is to have
WITHIN_S = 60
PICTURES = [encode(photograph(size=(40 + i, 32))) for i in range(4)]  # told apart in the answers by their width


@dataclass
class Seen:
    """What clients got: by status or error, and the answers that were no right ones."""

    plain: Counter[str] = field(default_factory=Counter)
    client: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)  # by the digest in the answers
    wrong: list[object] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Requests of plain connections that were not answered with a ranking."""
        return self.plain.total() - self.plain["200"]


@dataclass
class Cluster:
    """The cluster with the clients that never stop asking it."""

    orders: ray_cluster.Orders
    dogs: str
    seen: Seen = field(default_factory=Seen)

    def post(self, data: bytes, http: httpx.Client) -> httpx.Response:
        return http.post("/classify", content=data, headers={"Content-Type": "image/jpeg"})

    @contextmanager
    def http(self) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.orders.url, timeout=30, trust_env=False) as http:
            yield http

    @contextmanager
    def load(self, connections: int) -> Iterator[Seen]:
        """So many plain connections, and one client that tries again, all the while."""
        self.seen, over = Seen(), threading.Event()
        with ThreadPoolExecutor(connections + 1) as pool:
            asking = [pool.submit(self._ask, i, self.seen, over) for i in range(connections)]
            asking.append(pool.submit(self._ask_patiently, self.seen, over))
            try:
                yield self.seen
            finally:
                over.set()
        for each in asking:
            each.result()

    def _ask(self, number: int, seen: Seen, over: threading.Event) -> None:
        data = PICTURES[number % len(PICTURES)]
        with self.http() as http:
            while not over.is_set():
                try:
                    answer = self.post(data, http)
                except httpx.TransportError as error:
                    seen.plain[type(error).__name__] += 1
                    continue
                seen.plain[str(answer.status_code)] += 1
                body = answer.json()
                if answer.status_code == 200:
                    seen.models[body["model"]["digest"]] += 1
                    if body["image"]["width"] != 40 + number % len(PICTURES) or len(body["predictions"]) not in (4, 5):
                        seen.wrong.append(body)
                elif (answer.status_code, body["type"], answer.headers["retry-after"]) != (503, "/problems/not-ready", "1"):
                    seen.wrong.append(body)

    def _ask_patiently(self, seen: Seen, over: threading.Event) -> None:
        with Client(self.orders.url, timeout_s=30) as client:
            while not over.is_set():
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

    def samples(self, name: str) -> dict[str, float]:
        """Of a metric, its sum by replica."""
        with self.http() as http:
            families = text_string_to_metric_families(http.get("/metrics").text)
        found: Counter[str] = Counter()
        for sample in (s for family in families for s in family.samples if s.name == name):
            found[sample.labels["replica"]] += sample.value  # type: ignore[assignment]
        return dict(found)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("ray")
    dogs = checkpoints.write(folder / "models", "dogs", DOGS)
    checkpoints.export_into(folder / "cache", dogs)
    with ray_cluster.running({}, folder / "log.txt") as orders:
        made = Cluster(orders, str(dogs))
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


@pytest.mark.parametrize(
    "request_",
    [
        ("POST", "/classify", PICTURES[0], {"Content_Type": "image/jpeg"}),
        ("POST", "/classify?top_k=2", [PICTURES[0][:50], PICTURES[0][50:]], {"Content_Type": "image/jpeg", "Transfer_Encoding": "chunked"}),
        ("POST", "/classify", b"no image", {"Content_Type": "image/jpeg"}),
        ("POST", "/classify", b"", {"Content_Type": "text/plain"}),
        ("POST", "/classify?top_k=0", PICTURES[0], {"Content_Type": "image/jpeg"}),
        ("POST", "/classify", PICTURES[0], {"Content_Type": "image/jpeg", "X_Timeout_Ms": "soon"}),
        ("POST", "/models/default/load", b"{}", {"Content_Type": "application/json"}),
        ("HEAD", "/readyz", None, {}),
        ("GET", "/models/default%0A", None, {}),
        ("GET", "/no%2Fsuch", None, {}),
        ("PUT", "/classify", None, {}),
        ("GET", "/problems/not-ready", None, {}),
    ],
    ids=lambda each: f"{each[0]} {each[1]} {len(each[3])}",
)  # fmt: skip
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
