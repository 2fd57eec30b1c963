"""What replicas tell each other: the metrics of all in one text, and who is forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import ray_board
from app.metrics import Metrics
from app.ray_board import STALE_S, Board, ReportedMetrics, Reporter, merged
from tests.app.asgi import until


class Remote:
    """A board with the manners of an actor's handle; `gone` as one whose process died."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.gone = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.board, name)

        class Call:
            @staticmethod
            async def remote(*words: object) -> Any:
                if self.gone:
                    raise ConnectionError("it died")
                return method(*words)

        return Call


def samples(text: bytes, name: str) -> dict[str, float]:
    """By replica."""
    families = text_string_to_metric_families(text.decode())
    return {s.labels["replica"]: s.value for family in families for s in family.samples if s.name == name}


def test_the_texts_of_two_become_one_that_prometheus_reads() -> None:
    one, other = Metrics(), Metrics()
    one.requests.labels("/classify", 200).inc(3)
    other.requests.labels("/classify", 200).inc(4)
    other.requests.labels('/"}{ ', 404).inc()
    other.batch_size.observe(2)
    text = merged({"a": one.render(), "b": other.render()})
    families = list(text_string_to_metric_families(text.decode()))
    assert len({family.name for family in families}) == len(families)  # each in one piece
    requests = next(family for family in families if family.name == "sknet_requests")
    assert requests.type == "counter"
    assert requests.documentation == "Requests answered."
    found = [(s.labels["replica"], s.labels["route"], s.value) for s in requests.samples if s.name.endswith("_total")]
    assert found == [("a", "/classify", 3), ("b", "/classify", 4), ("b", '/"}{ ', 1)]
    assert samples(text, "sknet_batch_size_count") == {"a": 0, "b": 1}
    assert samples(text, "sknet_queue_size") == {"a": 0, "b": 0}


def test_what_was_not_heard_of_for_a_while_is_forgotten() -> None:
    now = 100.0
    board = Board(clock=lambda: now)
    board.tell("a", b"1", (None,))
    now += STALE_S / 2
    board.tell("b", b"2", ("x",))
    assert board.metrics() == {"a": b"1", "b": b"2"}
    now += STALE_S / 2 + 1
    assert board.metrics() == {"b": b"2"}
    assert board.serving() == ["x"]
    board.forget("b")
    board.forget("b")
    assert board.metrics() == {}


def test_the_most_usual_checkpoint_is_named_first() -> None:
    board = Board()
    for replica, serves in (("a", None), ("b", "x"), ("c", "x"), ("d", None), ("e", "x")):
        board.tell(replica, b"", (serves,))
    for replica in "fghi":  # which begin, and serve nothing yet
        board.tell(replica, b"", ())
    assert board.serving() == ["x", None]


async def test_each_tells_those_of_all_and_its_own_as_they_are_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_board, "EVERY_S", 0.01)
    board = Remote(Board())
    one, other = ReportedMetrics(), ReportedMetrics()
    one.reporter = Reporter("a", lambda: board, one, lambda: ("x",))
    other.reporter = Reporter("b", lambda: board, other, lambda: ("x",))
    other.queue_changed(5)
    telling = asyncio.create_task(other.reporter.run())
    await until(lambda: "b" in board.board.metrics())
    one.queue_changed(2)
    assert samples(await one.all(), "sknet_queue_size") == {"a": 2, "b": 5}
    assert await one.reporter.serving() == ["x"]
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    assert samples(await one.all(), "sknet_queue_size") == {"a": 2}


async def test_without_a_board_a_replica_tells_its_own_and_looks_for_another() -> None:
    boards = [Remote(Board()), Remote(Board())]
    found: list[Remote] = []

    def find() -> Remote:
        found.append(boards[len(found)])
        return found[-1]

    metrics = ReportedMetrics()
    reporter = metrics.reporter = Reporter("a", find, metrics, lambda: (None,))
    boards[1].board.tell("b", Metrics().render(), (None,))
    assert samples(await metrics.all(), "sknet_queue_size").keys() == {"a"}
    boards[0].gone = True
    assert samples(await metrics.all(), "sknet_queue_size").keys() == {"a"}
    assert await reporter.serving() == [None]
    assert samples(await metrics.all(), "sknet_queue_size").keys() == {"a", "b"}
    assert found == boards


async def test_one_that_asks_waits_for_the_others_to_find_a_new_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_board, "EVERY_S", 0.01)
    board = Remote(Board())
    asking = asyncio.create_task(Reporter("a", lambda: board, Metrics(), tuple).serving())
    await asyncio.sleep(0.05)
    assert not asking.done()
    board.board.tell("b", b"", ("x",))
    assert await asking == ["x"]
    board.gone = True
    monkeypatch.setattr(ray_board, "STALE_S", 0.05)
    assert await Reporter("a", lambda: board, Metrics(), tuple).serving() == []


async def test_metrics_with_no_reporter_are_plain() -> None:
    metrics = ReportedMetrics()
    assert await metrics.all() == metrics.render()
