"""Many images through a model of this process: order, errors, batches, and how much is held."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from app.answers import Answer
from app.image_files import Source, Unreadable
from app.local import Local, in_order
from tests.fakes import LABELS, FakeModel, fake_info


def sources(*images: bytes) -> list[Source]:
    return [Source(str(i), lambda _, data=data: data) for i, data in enumerate(images)]  # type: ignore[misc]


def answers(model: FakeModel, *images: bytes, k: int = 2, attention: bool = False) -> list[Answer]:
    return list(Local(model).classify(sources(*images), k=k, attention=attention))


@pytest.mark.parametrize(("streams", "batch_size"), [(1, 1), (2, 1), (1, 8), (3, 4)])
def test_every_image_is_answered_in_order(streams: int, batch_size: int) -> None:
    model = FakeModel(info=fake_info(streams=streams, batch_size=batch_size))
    found = answers(model, *(bytes([i % 7]) for i in range(50)))
    assert [answer.name for answer in found] == [str(i) for i in range(50)]
    assert [answer.predictions[0].index for answer in found] == [i % 7 for i in range(50)]
    assert all(len(answer.predictions) == 2 and answer.image is not None and answer.error is None for answer in found)
    assert max(map(len, model.batches)) == min(batch_size, 50)


def test_a_bad_image_costs_only_itself() -> None:
    model = FakeModel(info=fake_info(batch_size=4))
    found = answers(model, b"\1", b"bad", b"\2", b"poison", b"\3", b"huge")
    assert [bool(answer.error) for answer in found] == [False, True, False, True, False, True]
    assert found[1].error == "the bytes are no image"
    assert [answer.predictions[0].index for answer in found if answer.error is None] == [1, 2, 3]


def test_a_file_that_cannot_be_read_is_an_answer() -> None:
    def gone(_: str) -> bytes:
        raise Unreadable("No such file or directory")

    found = list(Local(FakeModel()).classify([Source("a", gone), *sources(b"\4")], k=1))
    assert found[0] == Answer("a", error="No such file or directory")
    assert found[1].predictions[0].index == 4


def test_k_is_at_most_the_classes() -> None:
    assert len(answers(FakeModel(), b"\0", k=1000)[0].predictions) == len(LABELS)


def test_kernel_attention_is_told_where_it_is_asked_for() -> None:
    assert answers(FakeModel(), b"\0")[0].attention is None
    told = answers(FakeModel(), b"\5", attention=True)[0].attention
    assert told is not None
    assert told.units[0].attention_difference == pytest.approx(0.1)


def test_only_a_few_are_held_and_the_first_are_told_before_the_last_are_read() -> None:
    read, told, most = 0, 0, 0

    def endless() -> Iterator[Source]:
        nonlocal read, most
        while True:
            read += 1
            most = max(most, read - told)
            yield Source("x", lambda _: b"\1")

    with closing(Local(FakeModel(info=fake_info(streams=2, batch_size=2))).classify(endless(), k=1)) as found:
        for _ in range(500):
            next(found)
            told += 1
    assert most < 100


def test_leaving_in_the_middle_ends_the_threads() -> None:
    before = threading.active_count()
    with Local(model := FakeModel()) as local, closing(local.classify(sources(*[b"\1"] * 100), k=1)) as found:
        next(found)
    assert threading.active_count() == before
    assert model.closed


def test_a_fault_of_ours_is_not_hidden() -> None:
    with pytest.raises(RuntimeError):
        answers(FakeModel(), b"\1", b"bug")


def test_about_says_what_runs() -> None:
    local = Local(FakeModel())
    assert local.labels == LABELS
    assert dict(local.about) == {
        "checkpoint": "bundled:fake",
        "variant": "skfake",
        "digest": "sha256:" + "0" * 64,
        "runs": "in this process: fake, fake, fake",
    }


def test_in_order_begins_no_more_than_its_depth() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def work(i: int) -> int:
        begun.append(i)
        assert gate.wait(10)
        return -i

    with ThreadPoolExecutor(4) as pool:
        taken: Sequence[Any] = []
        run = in_order(pool, work, iter(range(10)), 3)
        threading.Timer(0.05, gate.set).start()
        taken = [next(run)]
        assert sorted(begun) == [0, 1, 2]
        assert [*taken, *run] == [-i for i in range(10)]
