"""Open connections by what they wait for: who gives way to whom."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from app import connections as connections_module
from app.connections import Connections, Wait
from app.metrics import Metrics


@dataclass(eq=False)
class Fake:
    wait: Wait | None = None
    was_cut: bool = False

    def cut(self) -> None:
        self.was_cut = True


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def opened(connections: Connections, *waits: Wait) -> list[Fake]:
    made = [Fake() for _ in waits]
    for each, wait in zip(made, waits, strict=True):
        assert connections.open(each)
        connections.waits(each, wait)
    return made


def test_idle_gives_way_first_then_who_waited_longest_and_work_never(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "FRESH_S", 0.0)
    connections = Connections(4, metrics)
    work, reader, body, idle = opened(connections, Wait.WORK, Wait.READER, Wait.BODY, Wait.IDLE)
    for victim in (idle, reader, body):
        opened(connections, Wait.WORK)
        assert victim.was_cut
        assert victim.wait is None
    assert not work.was_cut
    assert len(connections) == 4
    assert not connections.open(Fake())
    value = metrics.registry.get_sample_value
    for reason in ("idle", "body", "reader", "refused"):
        assert value("sknet_connections_cut_total", {"reason": reason}) == 1
    assert (value("sknet_connections"), value("sknet_connections_limit")) == (5, 4)  # with the one that is being refused


def test_one_that_connected_just_now_is_not_cut_in_favour_of_old_uploads(metrics: Metrics) -> None:
    connections = Connections(3, metrics)
    uploads = opened(connections, Wait.BODY, Wait.BODY)
    (fresh,) = opened(connections, Wait.IDLE)
    for upload in uploads:
        opened(connections, Wait.BODY)
        assert upload.was_cut
    assert not fresh.was_cut
    opened(connections, Wait.BODY)
    assert fresh.was_cut  # by now the one that has waited longest


def test_the_one_that_has_waited_longest_goes_first(metrics: Metrics) -> None:
    connections = Connections(3, metrics)
    first, second, third = opened(connections, Wait.IDLE, Wait.IDLE, Wait.IDLE)
    connections.waits(first, Wait.WORK)
    connections.waits(first, Wait.IDLE)  # it began to wait anew
    connections.waits(second, Wait.IDLE)  # it did not
    assert connections.open(Fake())
    assert (first.was_cut, second.was_cut, third.was_cut) == (False, True, False)


def test_what_is_closed_is_counted_once(metrics: Metrics) -> None:
    connections = Connections(3, metrics)
    (one,) = opened(connections, Wait.BODY)
    connections.close(one)
    connections.close(one)
    connections.waits(one, Wait.IDLE)  # of the dead nothing is noted
    assert (len(connections), one.wait) == (0, None)
    assert metrics.registry.get_sample_value("sknet_connections") == 0
