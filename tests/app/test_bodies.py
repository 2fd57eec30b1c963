"""Bounded bodies, early refusals, and what becomes of a connection then: message by message, as a server would hand them on."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.bodies import SMALL_BYTES, BodyLimits
from app.context import Deadline
from app.errors import AppError, Overloaded
from app.problems import answer
from app.room import Room
from tests.app.asgi import LEFT, Answer, exchange, http_scope, logged, part, problem, read_all, read_nothing, serving, until
from tests.fakes import FakeModel

RAW = {"Content-Type": "image/png"}


def limited(
    app: ASGIApp = read_all, *, body: int = 100, buffered: int = 1000, deadline_s: float = 10.0, full: bool = False
) -> tuple[ASGIApp, BodyLimits]:
    def refuse(count: int, deadline: Deadline) -> AppError | None:
        assert (count, deadline.limit_s) == (1, deadline_s)
        return Overloaded("images at once", 3, 7) if full else None

    paths = ("/classify", "/classify/batch")
    limits = BodyLimits(
        app,
        max_body_bytes=body,
        room=Room(buffered, lambda: 7),
        by_path={"/classify/batch": 500},
        refusals=dict.fromkeys(paths, refuse),
        uncompressed=frozenset({"/classify"}),
    )
    return logged(limits, deadline_s), limits


async def test_an_announced_body_over_the_limit_is_refused_unread() -> None:
    app, limits = limited()
    got = await exchange(app, http_scope(headers={"Content-Length": "101"}), [part(b"x" * 101)])
    body = problem(got, 413, "body-too-large")
    assert (body["limit"], body["value"]) == (100, 101)
    assert (got.received_first, got.headers["connection"]) == (0, "close")
    assert limits.room.used == 0


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
    assert limits.room.used == 0


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    for headers in ({"Content-Length": "100"}, {"Transfer-Encoding": "chunked"}):
        got = await exchange(limited()[0], http_scope(headers=headers), [part(b"x" * 60, more=True), part(b"x" * 40)])
        assert (got.status_code, got.content) == (200, b"100")
        assert "connection" not in got.headers


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0", "\t", "\x7f", "\x85"])
async def test_no_route_has_a_second_spelling(end: str) -> None:
    """What is decided by path (limits, deadlines, early refusals) would not be decided for it."""
    routes = [("GET", "/livez"), ("GET", "/models"), ("GET", "/models/default"), ("GET", "/"), ("GET", "/static/page.js")]
    routes += [("POST", path) for path in ("/classify", "/classify/batch", "/models/default/load", "/models/default/unload")]
    async with serving(open_admin=True) as service:
        for method, path in routes:
            scope = http_scope(method, path + end, headers={**RAW, "X-Timeout-Ms": "no number", "Content-Length": "1000000"})
            got = await exchange(service.app, scope, [part(b"x" * 1_000_000)])
            assert problem(got, 404, "not-found")["detail"] == f"There is no route {path}{repr(end)[1:-1]}."
            assert got.received_first == 0
        assert service.model.prepared == []
        assert (await service.client.get("/models")).json()["models"][0]["state"] == "ready"


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
    assert limits.room.used == 200
    third = await send_100()
    assert problem(third, 429, "overloaded")["limit"] == 250
    assert int(third.headers["retry-after"]) >= 1
    assert third.received_first == 2  # small enough to be thrown away first, so that the connection stays of use
    assert "connection" not in third.headers
    assert limits.room.used == 200
    slow.go.set()
    assert [(await each).status_code for each in first] == [200, 200]
    assert limits.room.used == 0
    assert (await send_100()).status_code == 200


async def test_reserved_bytes_come_back_whatever_happens() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        raise RuntimeError

    app, limits = limited(broken)
    await exchange(app, http_scope(headers={"Content-Length": "50"}), [part(b"x" * 50)])
    assert limits.room.used == 0
    slow = Slow()
    app, limits = limited(slow)
    task = asyncio.create_task(exchange(app, http_scope(headers={"Content-Length": "50"}), [part(b"x" * 50)]))
    await until(lambda: slow.read == 1)
    assert limits.room.used == 50
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limits.room.used == 0


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


async def test_the_rest_of_a_refused_body_is_thrown_away_after_the_whole_answer() -> None:
    app, _ = limited()
    got = await exchange(app, http_scope(headers={"Content-Length": "400"}), [part(b"x" * 40, more=i < 9) for i in range(10)])
    assert got.received == 10
    assert [m["more_body"] for m in got.messages[1:]] == [True, False]
    assert got.messages[2]["body"] == b""
    problem(got, 413, "body-too-large")


async def test_a_client_that_goes_on_sending_for_ever_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.bodies.LINGER_S", 0.05)
    app, _ = limited()
    scope, stays = http_scope(headers={"Content-Length": "400"}), asyncio.Event()
    got = await exchange(app, scope, [part(b"x", more=True)], leave=stays)  # and then nothing
    problem(got, 413, "body-too-large")
    assert not got.messages[-1]["more_body"]


async def test_a_body_that_stalls() -> None:
    app, limits = limited(deadline_s=0.05)
    got = await exchange(app, http_scope(headers={"Content-Length": "50"}), [part(b"12345", more=True)])
    assert problem(got, 408, "body-timeout")["limit"] == 0.05
    assert got.headers["connection"] == "close"
    assert limits.room.used == 0


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


# refused early


POST_400 = {"Content-Length": "400"}


async def test_without_room_a_large_body_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.bodies.SMALL_BYTES", 399)
    app, limits = limited(full=True, body=500)
    got = await exchange(app, http_scope(headers=POST_400), [part(b"x" * 40, more=i < 9) for i in range(10)])
    assert problem(got, 429, "overloaded")["limit"] == 3
    assert (got.received_first, got.headers["connection"], got.headers["retry-after"]) == (0, "close", "7")
    assert got.received == 10
    assert limits.room.used == 0


async def test_without_room_a_small_body_is_thrown_away_and_the_connection_stays() -> None:
    app, limits = limited(full=True, body=500)
    got = await exchange(app, http_scope(headers=POST_400), [part(b"x" * 200, more=True), part(b"x" * 200)])
    problem(got, 429, "overloaded")
    assert (got.received_first, got.headers.get("connection"), limits.room.used) == (2, None, 0)


async def test_a_small_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.bodies.SMALL_S", 0.02)
    monkeypatch.setattr("app.bodies.LINGER_S", 0.02)
    got = await exchange(limited(full=True, body=500)[0], http_scope(headers=POST_400), [part(b"x" * 200, more=True)])
    problem(got, 429, "overloaded")
    assert got.headers["connection"] == "close"


async def test_a_client_that_waits_to_be_told_is_not_told_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.bodies.LINGER_S", 0.02)
    got = await exchange(limited(full=True, body=500)[0], http_scope(headers=POST_400 | {"Expect": "100-continue"}))
    problem(got, 429, "overloaded")
    assert (got.received_first, got.headers["connection"]) == (0, "close")


async def test_a_client_that_leaves_while_it_is_refused() -> None:
    got = await exchange(limited(full=True, body=500)[0], http_scope(headers=POST_400), [part(b"x", more=True), LEFT])
    problem(got, 429, "overloaded")  # for the log; the server drops it
    assert got.received == 2


@pytest.mark.parametrize(("method", "path"), [("GET", "/classify"), ("POST", "/models"), ("HEAD", "/livez")])
async def test_nothing_but_classifying_is_refused_early(method: str, path: str) -> None:
    app, _ = limited(full=True)
    assert (await exchange(app, http_scope(method, path), [part(b"")])).status_code == 200


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
async def test_a_full_queue_is_told_before_the_body_is_read(path: str) -> None:
    gate = threading.Event()
    async with serving(FakeModel(gate=gate), max_queue=2) as service:
        waiting = [asyncio.create_task(service.client.post("/classify", content=b"x", headers=RAW)) for _ in range(2)]
        await until(lambda: service.parts.classifier._current().scheduler.admitted == 2)
        headers = RAW | {"Content-Length": str(SMALL_BYTES + 1)}
        scope = http_scope(path=path, headers=headers)
        got = await exchange(service.app, scope, [part(bytes(SMALL_BYTES), more=True), part(b"x")])
        problem(got, 429, "overloaded")
        assert (got.received_first, got.headers["connection"]) == (0, "close")
        assert int(got.headers["retry-after"]) >= 1
        assert service.metric("sknet_rejected_total", reason="overloaded") == 1
        gate.set()
        assert [(await each).status_code for each in waiting] == [200, 200]
        assert (await service.client.post("/classify", content=b"x", headers=RAW)).status_code == 200


async def test_many_refused_bodies_are_thrown_away_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.bodies.SMALL_BYTES", 0)
    waits: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    monkeypatch.setattr("app.bodies.asyncio.sleep", sleep)
    app, limits = limited(full=True, body=500)

    async def refused() -> Answer:
        return await exchange(app, http_scope(headers=POST_400), [part(b"x" * 40, more=i < 9) for i in range(10)])

    await refused()
    alone = max(waits)
    answers = await asyncio.gather(*(refused() for _ in range(20)))
    assert max(waits) == pytest.approx(20 * alone)
    assert {answer.status_code for answer in answers} == {429}
    assert limits._lingering == 0


def coded(*lines: str, method: str = "POST", path: str = "/classify") -> dict[str, Any]:
    scope = http_scope(method, path)
    scope["headers"] += [(b"content-encoding", line.encode("latin-1")) for line in lines]
    return scope


@pytest.mark.parametrize(
    ("lines", "given"),
    [
        (["gzip"], "gzip"), (["BR"], "BR"), (["identity", "deflate"], "identity, deflate"), (["zstd, gzip"], "zstd, gzip"),
        (["\xe9"], "\xe9"), (["x" * 200], "x" * 100),
    ],
)  # fmt: skip
async def test_a_compressed_body_that_nobody_unpacks_is_refused_unread(lines: list[str], given: str) -> None:
    app, _ = limited(full=True)  # which would be said to come back
    got = await exchange(app, coded(*lines), [part(b"x", more=True)])
    body = problem(got, 415, "unsupported-media-type")
    assert body["detail"] == f"the Content-Encoding {given!r} is not accepted; send identity"
    assert (body["value"], body["allowed"]) == (given, ["identity"])
    assert got.received_first == 0


@pytest.mark.parametrize(
    "scope",
    [
        coded(), coded(""), coded("identity"), coded("Identity , ,", "identity"), coded("gzip", path="/classify/batch"),
        coded("gzip", method="GET"), coded("gzip", path="/nothing"),
    ],
)  # fmt: skip
async def test_a_body_that_is_not_compressed_or_not_for_us_to_refuse_goes_on(scope: dict[str, Any]) -> None:
    assert (await exchange(limited()[0], scope, [part(b"x")])).status_code == 200


COMPRESSED = {
    "/classify": 415, "/classify/batch": 415, "/explain": 415, "/hf": 415, "/invocations": 415, "/vertex/predict": 415,
    "/models/default/load": 415, "/models/default/unload": 415, "/v2/repository/index": 415,
    "/v2/repository/models/default/load": 415, "/v2/repository/models/default/unload": 415,
    "/v2/models/default/infer": 400, "/v2/models/default/versions/1/infer": 400,  # which unpack: this is no gzip
}  # fmt: skip


async def test_every_route_with_a_body_unpacks_it_or_says_that_it_does_not() -> None:
    async with serving(open_admin=True) as service:
        for path, status in COMPRESSED.items():
            answer = await service.client.post(path, content=b"x", headers={"Content-Encoding": "gzip"})
            assert answer.status_code == status, path
            if status == 415:
                assert "the Content-Encoding 'gzip' is not accepted; send identity" in answer.text
        answer = await service.client.post("/v2/models/default/ready", content=b"x", headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 405  # as without a coding
        declared = {path for path, methods in service.app.openapi()["paths"].items() if "post" in methods}
        named = {path.replace("{name}", "default") for path in declared}
        assert named <= set(COMPRESSED)
        assert service.model.prepared == []
