"""The client against real servers that refuse, end and come back: nothing is lost or out of order; and the README's example."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from itertools import takewhile
from pathlib import Path

import pytest

from app.bench.process import free_port
from app.client import AsyncClient, Classification, Client, ClientError, NotReady, Readiness, Unreachable
from tests.e2e.server import Server, serve
from tests.images import encode, photograph
from tests.repo.readme import client_example

pytestmark = pytest.mark.e2e
AT_ONCE, ROOM, COUNT = 8, 4, 200
Found = list[Classification | ClientError]


def test_the_example_of_the_readme(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph().save(tmp_path / "photo.jpg")
    (tmp_path / "holiday").mkdir()
    for name in ("a", "b"):
        photograph(size=(60, 40)).save(tmp_path / "holiday" / f"{name}.jpg")
    (tmp_path / "holiday" / "c.jpg").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    example, count = re.subn(r"http://127\.0\.0\.1:8000", server.url, client_example())
    assert count
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.fullmatch(r"cat 0\.\d+\nholiday/a.jpg cat\nholiday/b.jpg cat\nholiday/c.jpg failed: .*not an image.*\n", printed)


def pictures() -> list[bytes]:
    """Pictures that the answers tell apart, by their width."""
    picture = photograph(size=(32, 32))
    return [encode(picture.resize((20 + i, 24))) for i in range(COUNT)]


def ask_blocking(url: str, stop: threading.Event) -> Found:
    with Client(url, timeout_s=60, concurrency=AT_ONCE) as client:
        each = client.iter_classify(pictures(), top_k=1)
        return [found for _, found in takewhile(lambda _: not stop.is_set(), each)]


def ask_on_asyncio(url: str, stop: threading.Event) -> Found:
    async def ask() -> Found:
        async with AsyncClient(url, timeout_s=60, concurrency=AT_ONCE) as client:
            each = client.iter_classify(pictures(), top_k=1)
            found = []
            async with aclosing(each):
                async for _, result in each:
                    found.append(result)
                    if stop.is_set():
                        break
            return found

    return asyncio.run(ask())


def statuses(server: Server) -> list[object]:
    return [record.get("status") for record in server.records() if record.get("path") == "/classify"]


def test_too_much_at_once_and_a_restart_lose_nothing() -> None:
    """Both clients at the same time, each alone with twice as many images under way as there is room for."""
    port, stop = free_port(), threading.Event()
    settings = ("--port", str(port), "--max-queue", str(ROOM))
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        stack.callback(stop.set)  # if anything fails, the clients end as well
        with serve(*settings) as first:
            both = [pool.submit(ask, f"http://127.0.0.1:{port}", stop) for ask in (ask_blocking, ask_on_asyncio)]
            while statuses(first).count(200) < COUNT // 10:
                time.sleep(0.02)
            first.stop(signal.SIGKILL)
        assert not any(each.done() for each in both)
        with serve(*settings) as second:
            found = [each.result(60) for each in both]
    for each in found:
        assert [one.image.width if isinstance(one, Classification) else one for one in each] == [20 + i for i in range(COUNT)]
    assert (statuses(first) + statuses(second)).count(429) > 0


def test_a_service_from_before_its_start_to_after_its_end() -> None:
    port = str(free_port())
    with Client(f"http://127.0.0.1:{port}", timeout_s=5, retries=0) as client:
        with pytest.raises(Unreachable, match="connection refused"):
            client.ready()
        with serve("--port", port, "--open-admin", "true", wait=False) as server:
            client.wait_ready(60)
            assert client.ready() == Readiness(True)
            cat = photograph()
            assert client.classify(cat, top_k=1).best.label == "cat"
            assert [scale.scale for scale in client.explain(cat).scale_sweep] == [1.0, 1.5, 2.0]
            assert client.unload("default").state == "unloaded"
            with pytest.raises(NotReady):
                client.classify(cat)
            assert not client.ready()
            assert client.load("default", "bundled:cifar10").state == "ready"
            assert client.classify(cat, explain=True).kernel_attention
            assert server.stop() == 0
        with pytest.raises(Unreachable):
            client.classify(cat)
