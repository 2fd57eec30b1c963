"""Ids, deadlines, bounded bodies and clients that leave: message by message, as a server would hand them on."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.context import context_of
from app.metrics import Metrics
from app.middleware import BodyLimits, Departures, RequestLog
from app.problems import answer
from tests.app.asgi import LEFT, Answer, exchange, http_scope, part, problem, serving, until
from tests.fakes import FakeModel

RAW = {"Content-Type": "image/png"}


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """A tiny application: reads the body, answers its length; errors become problems as in the real one."""
    try:
        body = await Request(scope, receive).body()
    except ClientDisconnect:
        raise
    except Exception as error:  # noqa: BLE001 - stands for the application's own handlers
        await answer(error, scope, receive, send)
        return
    await PlainTextResponse(str(len(body)))(scope, receive, send)


async def read_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("done")(scope, receive, send)


def logged(app: ASGIApp, deadline_s: float = 10.0) -> RequestLog:
    return RequestLog(app, metrics=Metrics(), deadline_s=deadline_s, timed=frozenset({"/classify", "/classify/batch"}))


def limited(
    app: ASGIApp = read_all, *, body: int = 100, buffered: int = 1000, deadline_s: float = 10.0
) -> tuple[ASGIApp, BodyLimits]:
    limits = BodyLimits(
        app, max_body_bytes=body, max_buffered_bytes=buffered, by_path={"/classify/batch": 500}, retry_after=lambda: 7
    )
    return logged(limits, deadline_s), limits


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


async def test_the_rest_of_a_refused_body_is_thrown_away_after_the_whole_answer() -> None:
    app, _ = limited()
    got = await exchange(app, http_scope(headers={"Content-Length": "400"}), [part(b"x" * 40, more=i < 9) for i in range(10)])
    assert got.received == 10
    assert [m["more_body"] for m in got.messages[1:]] == [True, False]
    assert got.messages[2]["body"] == b""
    problem(got, 413, "body-too-large")


async def test_a_client_that_goes_on_sending_for_ever_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.middleware.LINGER_S", 0.05)
    app, _ = limited()
    got = await exchange(app, http_scope(headers={"Content-Length": "400"}), [part(b"x", more=True)])  # and then nothing
    assert not got.messages[-1]["more_body"]


async def test_other_protocols_pass_untouched() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    limits = BodyLimits(Departures(app), max_body_bytes=1, max_buffered_bytes=1, by_path={}, retry_after=lambda: 1)
    await exchange(logged(limits), {"type": "lifespan"})
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
    app, limits = limited()
    scope = http_scope(headers={"Content-Length": "5"})
    scope["headers"].append((b"x-timeout-ms", given.encode()))
    got = await exchange(app, scope, [part(b"12345")])
    body = problem(got, 422, "invalid-parameter")
    assert body["parameter"] == "X-Timeout-Ms"
    assert len(got.content) < 600
    assert (got.received_first, got.headers["connection"]) == (0, "close")
    assert limits._buffered == 0


async def test_a_body_that_stalls() -> None:
    app, limits = limited(deadline_s=0.05)
    got = await exchange(app, http_scope(headers={"Content-Length": "50"}), [part(b"12345", more=True)])
    assert problem(got, 408, "body-timeout")["limit"] == 0.05
    assert got.headers["connection"] == "close"
    assert limits._buffered == 0


@pytest.mark.parametrize(
    "headers", [RAW, {"Content-Type": "multipart/form-data; boundary=x"}, {"Content-Type": "application/json"}]
)
@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
async def test_a_stalling_body_in_every_form(headers: dict[str, str], path: str) -> None:
    async with serving(deadline_s=0.05) as service:
        if path == "/classify/batch" and headers is RAW:
            headers = {"Content-Type": "application/json"}
        scope = http_scope(path=path, headers=headers | {"Transfer-Encoding": "chunked"})
        problem(await exchange(service.app, scope, [part(b"--x\r\n", more=True)]), 408, "body-timeout")


async def test_the_client_may_make_a_slow_engine_too_late() -> None:
    async with serving(FakeModel(run_s=0.6)) as service:
        response = await service.client.post("/classify", files={"file": b"x"}, headers={"X-Timeout-Ms": "200"})
        assert problem(response, 504, "deadline-passed")["limit"] == 0.2
        assert service.parts.classifier._current().scheduler.admitted == 0


# bounded bodies


async def test_an_announced_body_over_the_limit_is_refused_unread() -> None:
    app, limits = limited()
    got = await exchange(app, http_scope(headers={"Content-Length": "101"}), [part(b"x" * 101)])
    body = problem(got, 413, "body-too-large")
    assert (body["limit"], body["value"]) == (100, 101)
    assert (got.received_first, got.headers["connection"]) == (0, "close")
    assert limits._buffered == 0


@pytest.mark.parametrize("length", ["9" * 30, "9" * 5000])
async def test_an_absurd_announcement(length: str) -> None:
    problem(await exchange(limited()[0], http_scope(headers={"Content-Length": length})), 413, "body-too-large")


@pytest.mark.parametrize("headers", [{"Transfer-Encoding": "chunked"}, {}, {"Content-Length": "10"}, {"Content-Length": "x"}])
async def test_more_bytes_than_allowed_are_refused_by_counting(headers: dict[str, str]) -> None:
    app, limits = limited()
    got = await exchange(app, http_scope(headers=headers), [part(b"x" * 40, more=True) for _ in range(10)])
    body = problem(got, 413, "body-too-large")
    assert (body["limit"], body["value"]) == (100, 120)
    assert got.received_first == 3
    assert limits._buffered == 0


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    for headers in ({"Content-Length": "100"}, {"Transfer-Encoding": "chunked"}):
        got = await exchange(limited()[0], http_scope(headers=headers), [part(b"x" * 60, more=True), part(b"x" * 40)])
        assert (got.status_code, got.content) == (200, b"100")
        assert "connection" not in got.headers


async def test_the_batch_has_a_limit_of_its_own() -> None:
    app, _ = limited()
    got = await exchange(app, http_scope(path="/classify/batch", headers={"Content-Length": "400"}), [part(b"x" * 400)])
    assert got.content == b"400"
    got = await exchange(app, http_scope(path="/classify/batch", headers={"Content-Length": "501"}))
    assert problem(got, 413, "body-too-large")["limit"] == 500


@pytest.mark.parametrize("headers", [{"Content-Length": "50"}, {"Transfer-Encoding": "chunked"}])
async def test_the_connection_closes_where_the_body_was_not_read(headers: dict[str, str]) -> None:
    got = await exchange(limited(read_nothing)[0], http_scope(headers=headers), [part(b"x" * 50)])
    assert got.headers["connection"] == "close"


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "0"}])
async def test_it_stays_open_where_there_is_no_body(headers: dict[str, str]) -> None:
    got = await exchange(limited(read_nothing)[0], http_scope("GET", headers=headers), [part(b"")])
    assert "connection" not in got.headers


class Slow:
    """Reads the body, then waits to be told to answer."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.read = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await Request(scope, receive).body()
        except Exception as error:  # noqa: BLE001 - stands for the application's own handlers
            await answer(error, scope, receive, send)
            return
        self.read += 1
        await self.go.wait()
        await read_nothing(scope, receive, send)


@pytest.mark.parametrize("announced", [True, False])
async def test_all_bodies_together_are_bounded(announced: bool) -> None:
    slow = Slow()
    app, limits = limited(slow, buffered=250)

    async def send_100() -> Answer:
        headers = {"Content-Length": "100"} if announced else {"Transfer-Encoding": "chunked"}
        return await exchange(app, http_scope(headers=headers), [part(b"x" * 50, more=True), part(b"x" * 50)])

    first = [asyncio.create_task(send_100()) for _ in range(2)]
    await until(lambda: slow.read == 2)
    assert limits._buffered == 200
    third = await send_100()
    assert problem(third, 429, "overloaded")["limit"] == 250
    assert int(third.headers["retry-after"]) >= 1
    assert third.received_first == (0 if announced else 2)
    assert third.headers.get("connection") == ("close" if announced else None)  # what was read to its end needs no closing
    assert limits._buffered == 200
    slow.go.set()
    assert [(await each).status_code for each in first] == [200, 200]
    assert limits._buffered == 0
    assert (await send_100()).status_code == 200


async def test_reserved_bytes_come_back_whatever_happens() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        raise RuntimeError

    app, limits = limited(broken)
    await exchange(app, http_scope(headers={"Content-Length": "50"}), [part(b"x" * 50)])
    assert limits._buffered == 0
    slow = Slow()
    app, limits = limited(slow)
    task = asyncio.create_task(exchange(app, http_scope(headers={"Content-Length": "50"}), [part(b"x" * 50)]))
    await until(lambda: slow.read == 1)
    assert limits._buffered == 50
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limits._buffered == 0


async def test_the_limits_hold_in_the_whole_application() -> None:
    async with serving(max_body_bytes=1000, max_batch_body_bytes=2000) as service:
        for path, limit in (("/classify", 1000), ("/classify/batch", 2000), ("/models", 1000)):
            response = await service.client.post(path, content=b"x" * (limit + 1), headers=RAW)
            assert problem(response, 413, "body-too-large")["limit"] == limit

            async def chunks(size: int = limit) -> Any:
                for _ in range(3):
                    yield b"x" * (size // 2)

            if path != "/models":  # nothing reads a body there
                headers = {"Content-Type": "application/json"}
                problem(await service.client.post(path, content=chunks(), headers=headers), 413, "body-too-large")
        assert (await service.client.post("/classify", content=b"x" * 1000, headers=RAW)).status_code == 200


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
    assert asyncio.all_tasks() == before


async def test_work_of_a_client_that_left_never_reaches_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sknet.access")
    gate = threading.Event()
    async with serving(FakeModel(gate=gate), batch_size=1) as service:
        first = asyncio.create_task(service.client.post("/classify", content=b"first", headers=RAW))
        await asyncio.to_thread(service.model.entered.wait, 5)
        leave = asyncio.Event()
        leaving = asyncio.create_task(exchange(service.app, http_scope(headers=RAW), [part(b"leaving")], leave=leave))
        staying = asyncio.create_task(service.client.post("/classify", content=b"staying", headers=RAW))
        scheduler = service.parts.classifier._current().scheduler
        await until(lambda: len(scheduler._waiting) == 2)
        leave.set()
        got = await leaving
        assert not got.started
        assert (scheduler.admitted, len(scheduler._waiting)) == (2, 1)
        gate.set()
        assert [(await each).status_code for each in (first, staying)] == [200, 200]
        assert service.model.batches == [[b"first"], [b"staying"]]
        assert service.metric("sknet_images_total", outcome="abandoned") == 1
        assert service.metric("sknet_requests_total", route="/classify", status="left") == 1
        assert "POST /classify left" in caplog.messages
