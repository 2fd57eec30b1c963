"""Ids, deadlines, log lines and clients that leave: message by message, as a server would hand them on."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import threading
import weakref
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from app.bodies import BodyLimits
from app.context import context_of
from app.middleware import Departures
from app.room import Room
from tests.app.asgi import LEFT, exchange, http_scope, logged, part, problem, read_all, read_nothing, serving, until
from tests.fakes import FakeModel

RAW = {"Content-Type": "image/png"}


# ids, headers, log lines


@pytest.mark.parametrize("given", ["abc-123", "a" * 128, "!~", "7f/8:9"])
async def test_a_request_id_is_echoed(client: httpx.AsyncClient, given: str) -> None:
    for path in ("/livez", "/nowhere", "/classify"):
        assert (await client.get(path, headers={"X-Request-ID": given})).headers["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "a" * 129, "a b", "a\tb", "ä", "\x7f"])
async def test_garbage_is_replaced_by_an_id_of_ours(given: str | None) -> None:
    headers = {} if given is None else {"X-Request-ID": given}
    answers = [await exchange(logged(read_nothing), http_scope(headers=headers)) for _ in range(2)]
    ids = [a.headers["x-request-id"] for a in answers]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    assert ids[0] != ids[1]


async def test_every_answer_has_id_and_timing(client: httpx.AsyncClient) -> None:
    for path in (
        "/livez",
        "/readyz",
        "/metrics",
        "/models",
        "/docs",
        "/openapi.json",
        "/nowhere",
        "/classify",
        "/static/nothing.js",
    ):
        response = await client.get(path)
        assert response.headers["x-request-id"]
        assert re.fullmatch(
            r"queue;dur=[\d.]+, prepare;dur=[\d.]+, inference;dur=[\d.]+, total;dur=[\d.]+", response.headers["server-timing"]
        )


async def test_one_line_a_request_without_its_query(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sknet.access")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await client.post("/classify?top_k=0", files={"file": b"x"}, headers={"X-Request-ID": "abc", "traceparent": trace})
    (line,) = [r for r in caplog.records if r.name == "sknet.access"]
    assert line.getMessage() == "POST /classify 422"
    fields = vars(line)
    assert (fields["request_id"], fields["traceparent"], fields["problem"]) == ("abc", trace, "invalid-parameter")
    assert fields["duration_ms"] > 0
    assert "top_k" not in line.getMessage()


async def test_a_fault_before_the_answer_is_a_problem_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a secret")

    body = problem(await exchange(logged(broken), http_scope(headers={"X-Request-ID": "abc"})), 500, "internal-error")
    assert "secret" not in str(body)
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert vars(record)["request_id"] == "abc"
    assert record.exc_info


async def test_a_fault_in_the_middle_of_an_answer_cuts_it() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late")

    with pytest.raises(RuntimeError, match="too late"):
        await exchange(logged(broken), http_scope())


async def test_other_protocols_pass_untouched() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    limits: dict[str, Any] = {"max_body_bytes": 1, "room": Room(1, lambda: 1), "by_path": {}, "refusals": {}}
    await exchange(logged(BodyLimits(Departures(app), **limits)), {"type": "lifespan"})
    assert seen == ["lifespan"]


# the deadline


@pytest.mark.parametrize(("given", "limit_s"), [(None, 10.0), ("500", 0.5), ("1", 0.001), ("60000", 10.0), ("9" * 400, 10.0)])
async def test_the_client_may_lower_the_deadline_and_not_raise_it(given: str | None, limit_s: float) -> None:
    deadlines = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        deadlines.append(context_of(scope).deadline)

    await exchange(logged(app), http_scope(headers={} if given is None else {"X-Timeout-Ms": given}))
    (deadline,) = deadlines
    assert deadline.limit_s == limit_s
    assert 0 <= deadline.at - (asyncio.get_running_loop().time() + limit_s - 1) <= 1


@pytest.mark.parametrize("given", ["", "0", "-5", "1.5", "soon", "1e3", "٣", "x" * 5000])
async def test_a_timeout_that_is_no_number(given: str) -> None:
    scope = http_scope(headers={"Content-Length": "5"})
    scope["headers"].append((b"x-timeout-ms", given.encode()))
    got = await exchange(logged(read_all), scope, [part(b"12345")])
    body = problem(got, 422, "invalid-parameter")
    assert body["parameter"] == "X-Timeout-Ms"
    assert len(got.content) < 600
    assert (got.received, got.headers["connection"]) == (0, "close")


async def test_the_client_may_make_a_slow_engine_too_late() -> None:
    async with serving(FakeModel(run_s=0.6)) as service:
        response = await service.client.post("/classify", files={"file": b"x"}, headers={"X-Timeout-Ms": "200"})
        assert problem(response, 504, "deadline-passed")["limit"] == 0.2
        assert service.parts.classifier._current().scheduler.admitted == 0


# clients that leave


async def test_a_client_that_leaves_after_its_body_stops_the_work() -> None:
    cancelled = asyncio.Event()
    working = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        working.set()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    leave = asyncio.Event()
    task = asyncio.create_task(exchange(Departures(app), http_scope(), [part(b"x")], leave=leave))
    await working.wait()
    assert not cancelled.is_set()
    leave.set()
    with pytest.raises(ClientDisconnect):
        await task
    assert cancelled.is_set()


async def test_a_client_that_leaves_during_its_body() -> None:
    with pytest.raises(ClientDisconnect):
        await exchange(Departures(read_all), http_scope(), [part(b"x", more=True), LEFT])


async def test_a_client_that_leaves_during_the_answer_lets_it_end() -> None:
    leave = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leave.set()
        await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b"end"})

    got = await exchange(Departures(app), http_scope(), [part(b"x")], leave=leave)
    assert got.content == b"end"


async def test_what_is_cancelled_from_outside_is_no_departure() -> None:
    working = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        working.set()
        await asyncio.sleep(10)

    task = asyncio.create_task(exchange(Departures(app), http_scope(), [part(b"x")]))
    await working.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_application_may_ask_whether_the_client_left() -> None:
    seen: list[str] = []
    leave = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leave.set()
        seen.append((await receive())["type"])

    await exchange(Departures(app), http_scope(), [part(b"x")], leave=leave)
    assert seen == ["http.disconnect"]


async def test_no_task_is_left_behind() -> None:
    before = asyncio.all_tasks()
    await exchange(Departures(read_all), http_scope(), [part(b"x")])
    await exchange(Departures(read_nothing), http_scope("GET"), [part(b"")])
    with pytest.raises(ClientDisconnect):
        await exchange(Departures(read_all), http_scope(), [LEFT])
    await asyncio.sleep(0)  # they end by themselves, a turn of the loop later
    assert asyncio.all_tasks() == before


async def test_a_request_is_forgotten_with_its_answer() -> None:
    """A circle of references would keep every body until the next collection of garbage."""

    class Trace:
        pass

    app = logged(Departures(read_all))
    gc.collect()
    gc.disable()
    try:
        scope = http_scope()
        scope["trace"] = trace = Trace()
        forgotten = weakref.ref(trace)
        await exchange(app, scope, [part(b"x")])
        del scope, trace
        await asyncio.sleep(0)
        assert forgotten() is None
    finally:
        gc.enable()


async def test_a_departure_leaves_no_mark_on_its_task() -> None:
    leave = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        leave.set()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await read_nothing(scope, receive, send)  # an application may refuse to be stopped

    got = await exchange(Departures(app), http_scope(), [part(b"x")], leave=leave)
    assert got.content == b"done"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_HEAD_is_GET_without_the_body(client: httpx.AsyncClient) -> None:  # noqa: N802 - a method's name
    for path in ("/livez", "/readyz", "/models/default", "/", "/docs", "/metrics", "/openapi.json", "/static/index.html"):
        head, get = await client.head(path), await client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
    assert (await client.head("/classify")).status_code == 405
    assert (await client.head("/nowhere")).status_code == 404


async def test_HEAD_is_logged_as_what_it_was(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:  # noqa: N802
    caplog.set_level(logging.INFO, "sknet.access")
    await client.head("/livez")
    assert "HEAD /livez 200" in caplog.messages


async def test_work_of_a_client_that_left_never_reaches_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sknet.access")
    gate = threading.Event()
    async with serving(FakeModel(gate=gate)) as service:
        first = asyncio.create_task(service.client.post("/classify", content=b"first", headers=RAW))
        await asyncio.to_thread(service.model.entered.wait, 5)
        leave = asyncio.Event()
        leaving = asyncio.create_task(exchange(service.app, http_scope(headers=RAW), [part(b"leaving")], leave=leave))
        staying = asyncio.create_task(service.client.post("/classify", content=b"staying", headers=RAW))
        scheduler = service.parts.classifier._current().scheduler
        await until(lambda: scheduler.ready == 2)
        leave.set()
        got = await leaving
        assert not got.started
        assert (scheduler.admitted, scheduler.ready) == (2, 1)
        gate.set()
        assert [(await each).status_code for each in (first, staying)] == [200, 200]
        assert service.model.batches == [[b"first"], [b"staying"]]
        assert service.metric("sknet_images_total", outcome="abandoned") == 1
        assert service.metric("sknet_requests_total", route="/classify", status="left") == 1
        assert "POST /classify left" in caplog.messages
