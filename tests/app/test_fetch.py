"""Images by URL: what comes, what is asked of whom, and every way to lead the fetcher astray. Real servers on loopback."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from typing import Any

import pytest

from app import fetch as fetch_module
from app.errors import AppError, BodyTooLarge, DeadlinePassed, MalformedRequest, Overloaded, SourceForbidden, SourceUnreachable
from app.fetch import NO_PUBLIC_ADDRESS, Fetcher
from app.problems import row_of
from app.room import Room
from tests.app.asgi import Service, exchange, http_scope, part, problem, serving, until
from tests.app.origin import (
    HOST,
    Names,
    Origin,
    Reply,
    answer,
    certified,
    context,
    dialler,
    fetcher,
    ok,
    origin,
    redirect,
)
from tests.fakes import FakeModel
from tests.ssrf import DISGUISES, LOCATIONS, RESOLVED, Disguise, Name

CAT = b"\x02cat"
CODES = (301, 302, 303, 307, 308)


async def refused(fetch: Fetcher, url: str, kind: type[AppError], words: str | None = None) -> AppError:
    with pytest.raises(kind, match=words) as found:
        await fetch(url, context())
    return found.value


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, start: bytes, piece: bytes) -> None:
    """Send a start, then a piece now and then, for as long as the client listens."""
    writer.write(start)
    while not reader.at_eof():
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)
    raise ConnectionResetError


def slow(start: bytes, piece: bytes) -> Reply:
    return lambda reader, writer: trickle(reader, writer, start, piece)


# What is asked for, and how.


async def test_an_image_arrives() -> None:
    async with origin({"/cat.jpg?size=1": ok(CAT)}) as server:
        names = Names()
        assert await fetcher(server, names)(server.url("/cat.jpg?size=1#part"), context()) == CAT
        assert names.asked == [HOST]


async def test_nothing_is_told_that_need_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody is there
    async with origin({"/": redirect("/next"), "/next": answer("200 OK", CAT, "Set-Cookie: a=b")}) as server:
        fetch = fetcher(server)
        for _ in range(2):
            assert await fetch(server.url(), context()) == CAT
    for request in server.requests:
        line, *headers = request.strip().split("\r\n")
        sent = dict(header.split(": ", 1) for header in headers)
        agent = sent.pop("User-Agent")
        assert line in ("GET / HTTP/1.1", "GET /next HTTP/1.1")
        assert sent == {
            "Host": f"{HOST}:{server.port}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        assert agent.startswith("sknet-serve/")


async def test_by_https_for_its_name() -> None:
    async with origin({"/": ok(CAT)}, tls=certified()) as server:
        assert await fetcher(server)(server.url(scheme="https"), context()) == CAT


# What is refused before anything is sent.


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Where connections would go."""
    tried: list[Any] = []

    async def refuse(_: Any, __: Any, address: Any) -> None:
        tried.append(address)
        raise OSError("refused by the test")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", refuse)
    return tried


@pytest.mark.parametrize("disguise", DISGUISES, ids=lambda disguise: f"{disguise.what}: {disguise.url[:40]!a}")
async def test_a_disguise_is_refused_without_a_packet(disguise: Disguise, no_connections: list[Any]) -> None:
    names = Names()
    error = await refused(fetcher(Origin(1), names, url_ports="80,443,8080"), disguise.at(":8080"), AppError)
    assert row_of(type(error)).slug == disguise.slug
    assert (names.asked, no_connections) == ([], [])


@pytest.mark.parametrize("name", RESOLVED, ids=lambda name: name.host)
async def test_a_name_is_refused_without_a_connection(name: Name, no_connections: list[Any]) -> None:
    names = Names({name.host: [name.addresses]})
    await refused(
        fetcher(Origin(1), names, url_ports="80,443,8080"), f"http://{name.host}:8080/", SourceForbidden, NO_PUBLIC_ADDRESS
    )
    assert (names.asked, no_connections) == ([name.host], [])


async def test_a_public_address_would_be_called(no_connections: list[Any]) -> None:
    """So that the tests above could fail."""
    names = Names({HOST: [("93.184.215.14",)]})
    for url in (f"http://{HOST}/", "https://93.184.215.15/", "http://[2606:4700::1111]:8080/"):
        await refused(fetcher(Origin(1), names, url_ports="80,443,8080"), url, SourceUnreachable, "does not answer")
    assert no_connections == [("93.184.215.14", 80), ("93.184.215.15", 443), ("2606:4700::1111", 8080)]


async def test_the_answer_is_the_same_whether_or_not_somebody_listens() -> None:
    async with origin({"/": ok(CAT)}) as server:
        fetch = fetcher(Origin(1), url_ports=f"{server.port},9")
        texts = set()
        for host in ("127.0.0.1", "10.0.0.1", "nowhere.example.org", "localhost"):
            for port in (server.port, 9):
                texts.add(str(await refused(fetch, f"http://{host}:{port}/", SourceForbidden)))
        assert texts == {NO_PUBLIC_ADDRESS}
        assert server.connections == 0


async def test_only_certain_ports() -> None:
    async with origin() as server:
        text = str(await refused(fetcher(server, url_ports="80, 443"), server.url(), SourceForbidden))
        assert text == f"port {server.port} is not fetched from; allowed: 80, 443"
        assert server.connections == 0


@pytest.mark.parametrize(
    ("allowed", "host", "may"),
    [
        ("images.example.org", "images.example.org", True),
        (" a.org , IMAGES.example.org", "images.EXAMPLE.org", True),
        (".example.org", "images.example.org", True),
        (".example.org", "example.org", True),
        ("example.org", "images.example.org", False),
        (".example.org", "badexample.org", False),
        (".example.org", "example.org.evil.com", False),
        ("images.example.org", "127.0.0.1", False),
    ],
)
async def test_only_certain_hosts(allowed: str, host: str, may: bool) -> None:
    async with origin({"/": ok(CAT)}) as server:
        names = Names({host.lower(): [("127.0.0.1",)]})
        fetch = fetcher(server, names, url_hosts=allowed)
        if may:
            assert await fetch(server.url(host=host), context()) == CAT
        else:
            await refused(fetch, server.url(host=host), SourceForbidden, "certain hosts")
            assert (names.asked, server.connections) == ([], 0)


async def test_an_allowed_host_may_not_be_private_either() -> None:
    async with origin({"/": ok(CAT)}) as server:
        names = Names({HOST: [("10.0.0.1",)]})
        await refused(fetcher(server, names, url_hosts=HOST), server.url(), SourceForbidden, NO_PUBLIC_ADDRESS)


# Redirects.


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("location", ["next", "/next", "?x", "//HOST/next", "http://HOST/next#x"])
async def test_a_redirect_is_followed(code: int, location: str) -> None:
    async with origin({"/next": ok(CAT), "/?x": ok(CAT)}) as server:
        server.replies["/"] = redirect(location.replace("HOST", f"{HOST}:{server.port}"), code)
        assert await fetcher(server)(server.url(), context()) == CAT
        assert len(server.requests) == 2


@pytest.mark.parametrize("code", CODES)
async def test_a_redirect_to_anywhere_else_is_checked_as_the_first_address(code: int) -> None:
    async with origin() as server, origin() as inside:
        for location, what in LOCATIONS:
            names = Names({HOST: [("127.0.0.1",)], "private.example.org": [("10.0.0.1",)]})
            server.replies["/"] = redirect(location.replace("PORT", f":{inside.port}"), code)
            server.requests.clear()
            fetch = fetcher(server, names, url_ports=f"80,{server.port},{inside.port}")
            error = await refused(fetch, server.url(), AppError)
            assert type(error) is SourceForbidden, what
            assert (len(server.requests), inside.connections) == (1, 0), what
            assert set(names.asked) <= {HOST, "private.example.org"}


async def test_a_name_that_turns_private_after_the_redirect() -> None:
    async with origin({"/": redirect("/inside"), "/inside": ok(CAT)}) as server:
        names = Names({HOST: [("127.0.0.1",), ("10.0.0.1",)]})
        await refused(fetcher(server, names), server.url(), SourceForbidden, NO_PUBLIC_ADDRESS)
        assert (names.asked, len(server.requests)) == ([HOST, HOST], 1)


@pytest.mark.parametrize("most", [0, 1, 3])
async def test_redirects_end(most: int) -> None:
    async with origin({"/": redirect("/")}) as server:
        await refused(fetcher(server, url_redirects=most), server.url(), SourceForbidden, f"more than {most} times")
        assert len(server.requests) == most + 1


async def test_a_redirect_from_https_to_http() -> None:
    async with origin(tls=certified()) as server:
        server.replies["/"] = redirect(server.url("/next"))
        await refused(fetcher(server), server.url(scheme="https"), SourceForbidden, "https to http")
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [answer("302 Found"), answer("302 Found", b"", "Location: /a", "Location: /b"), answer("300 Multiple Choices", b"x")],
)
async def test_a_redirect_to_no_one_place(reply: bytes) -> None:
    async with origin({"/": reply}) as server:
        await refused(fetcher(server), server.url(), SourceUnreachable, "answered 30")


async def test_a_redirect_beyond_the_allowed_hosts_and_ports() -> None:
    async with origin(
        {"/host": redirect("http://other.example.org/"), "/port": redirect("http://images.example.org:1/")}
    ) as server:
        names = Names()
        fetch = fetcher(server, names, url_hosts=HOST)
        await refused(fetch, server.url("/host"), SourceForbidden, "certain hosts")
        await refused(fetch, server.url("/port"), SourceForbidden, "port 1 is not")
        assert set(names.asked) == {HOST}


# Answers.


@pytest.mark.parametrize(
    "status", ["404 Not Found", "500 Oops", "204 No Content", "206 Partial Content", "304 Not Modified", "401 No"]
)
async def test_another_status_is_told_without_its_body(status: str) -> None:
    async with origin({"/": answer(status, b"secret", "Content-Length: 6")}) as server:
        error = await refused(fetcher(server), server.url(), SourceUnreachable)
        assert str(error) == f"the image could not be fetched: its server answered {status[:3]}"


async def test_an_empty_answer() -> None:
    async with origin({"/": ok(b"")}) as server:
        await refused(fetcher(server), server.url(), SourceUnreachable, "sent nothing")


async def test_a_bomb_stays_packed() -> None:
    async with origin({"/": ok(gzip.compress(bytes(10**6)), "Content-Encoding: gzip")}) as server:
        await refused(fetcher(server), server.url(), SourceUnreachable, "compressed")


@pytest.mark.parametrize(("length", "kind"), [(5, SourceUnreachable), (10**7, SourceUnreachable), (10**8, BodyTooLarge)])
async def test_a_length_that_is_a_lie(length: int, kind: type[AppError]) -> None:
    async with origin({"/": ok(CAT, length=length)}) as server:
        await refused(fetcher(server), server.url(), kind)


async def test_a_body_without_an_end() -> None:
    async with origin({"/": slow(answer("200 OK"), bytes(100_000))}) as server:
        error = await refused(fetcher(server, max_body_bytes=250_000), server.url(), BodyTooLarge)
        assert isinstance(error, BodyTooLarge)
        assert 250_000 < error.value < 450_000
        await until(lambda: server.left == 1)


SLOW = {
    "no answer": slow(b"", b""),
    "headers": slow(b"HTTP/1.1 200 OK\r\n", b"a:b\r\n"),
    "a body": slow(answer("200 OK", b"", "Content-Length: 10000"), b"x"),
    "interim answers": slow(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
}


@pytest.mark.parametrize("what", SLOW)
async def test_what_comes_too_slowly(what: str) -> None:
    async with origin({"/": SLOW[what]}) as server:
        await refused(fetcher(server, url_timeout_s=0.2), server.url(), SourceUnreachable, r"within 0\.2 seconds")
        await until(lambda: server.left == 1)


async def test_redirects_share_one_time() -> None:
    async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.15)
        writer.write(redirect("/"))

    async with origin({"/": late}) as server:
        await refused(fetcher(server, url_timeout_s=0.4, url_redirects=20), server.url(), SourceUnreachable, "within")
        assert len(server.requests) <= 3


async def test_a_slow_name() -> None:
    async def resolve(host: str) -> list[str]:
        await asyncio.sleep(30)
        return []

    fetch = fetcher(Origin(1), resolve, url_timeout_s=0.05)  # type: ignore[arg-type]  # a resolver all the same
    await refused(fetch, f"http://{HOST}/", SourceUnreachable, "within")


async def test_the_deadline_of_the_request_counts_as_well() -> None:
    async with origin({"/": SLOW["a body"]}) as server:
        with pytest.raises(DeadlinePassed) as passed:
            await fetcher(server)(server.url(), context(0.1))
        assert passed.value.limit == 0.1


# Bounds on all of them together.


async def test_no_more_than_some_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "FETCHES", 2)
    async with origin({"/": SLOW["a body"], "/cat": ok(CAT)}) as server:
        fetch = fetcher(server)
        waiting = [asyncio.create_task(fetch(server.url(), context())) for _ in range(2)]
        await until(lambda: len(server.requests) == 2)
        full = await refused(fetch, server.url("/cat"), Overloaded)
        assert isinstance(full, Overloaded)
        assert (full.limit, full.retry_after) == (2, 1)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await until(lambda: server.left == 2)
        assert await fetch(server.url("/cat"), context()) == CAT


async def test_fetched_bytes_take_room_until_the_request_ends() -> None:
    gate, rooms = threading.Event(), []
    async with origin({"/": ok(CAT * 100), "/more": ok(CAT * 500)}) as server:

        def make(settings: Any, room: Room) -> Fetcher:
            rooms.append(room)
            return Fetcher(settings, room, dialler(server))

        options: dict[str, Any] = {"allow_urls": True, "url_ports": str(server.port), "max_buffered_bytes": 1000}
        async with serving(FakeModel(gate=gate), make_fetch=make, **options) as service:
            first = asyncio.create_task(service.client.post("/classify", json={"url": server.url()}))
            await until(lambda: rooms[0].used > 400)
            body = problem(await service.client.post("/classify", json={"url": server.url("/more")}), 429, "overloaded")
            assert body["limit"] == 1000
            assert 400 < rooms[0].used < 500
            gate.set()
            assert (await first).status_code == 200
            assert rooms[0].used == 0


# Through HTTP.


def allowing(server: Origin, names: Names | None = None, **settings: Any) -> Any:
    options = {"allow_urls": True, "url_ports": str(server.port), **settings}
    return serving(make_fetch=lambda chosen, room: Fetcher(chosen, room, dialler(server, names)), **options)


async def ask(service: Service, url: str, **headers: str) -> Any:
    return await service.client.post("/classify", json={"url": url}, headers=headers)


async def test_an_image_is_classified_by_its_url() -> None:
    async with origin({"/cat": ok(CAT)}) as server, allowing(server) as service:
        body = (await ask(service, server.url("/cat"))).json()
        assert body["predictions"][0]["label"] == "cat"
        assert service.model.prepared == [CAT]


async def test_what_comes_is_checked_like_any_image() -> None:
    async with origin({"/": ok(b"bad")}) as server, allowing(server) as service:
        problem(await ask(service, server.url()), 422, "image-undecodable")


async def test_each_problem_has_its_status() -> None:
    replies: dict[str, Reply] = {
        "/404": answer("404 Not Found", b"secret"),
        "/big": answer("200 OK", b"", "Content-Length: 5000"),
        "/slow": SLOW["headers"],
    }
    async with origin(replies) as server, allowing(server, max_body_bytes=1000, url_timeout_s=5) as service:
        body = problem(await ask(service, server.url("/404")), 422, "source-unreachable")
        assert body["detail"] == "the image could not be fetched: its server answered 404"
        body = problem(await ask(service, server.url("/big")), 413, "body-too-large")
        assert (body["limit"], body["value"]) == (1000, 5000)
        problem(await ask(service, server.url("/slow"), **{"X-Timeout-Ms": "100"}), 504, "deadline-passed")
        body = problem(await ask(service, "http://169.254.169.254/latest/"), 403, "source-forbidden")
        problem(await ask(service, "http://2130706433/"), 400, "malformed-request")
        assert service.metric("sknet_rejected_total", reason="source-unreachable") == 1
        assert service.model.prepared == []


async def test_the_log_says_what_the_client_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sknet.service")
    async with origin() as server, allowing(server, Names({"a.example.org": [("10.0.0.1",)]})) as service:
        response = await ask(service, f"http://a.example.org:{server.port}/")
        assert problem(response, 403, "source-forbidden")["detail"] == NO_PUBLIC_ADDRESS
        line = next(record for record in caplog.records if "url was refused" in record.message)
        assert line.message == "a url was refused: a.example.org is 10.0.0.1: private (RFC 1918)"
        assert line.__dict__["request_id"] == response.headers["x-request-id"]


async def test_a_client_that_leaves_ends_its_fetch() -> None:
    leave = asyncio.Event()
    async with origin({"/": SLOW["a body"]}) as server, allowing(server) as service:
        body = json.dumps({"url": server.url()}).encode()
        scope = http_scope(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
        request = asyncio.create_task(exchange(service.app, scope, [part(body)], leave=leave))
        await until(lambda: len(server.requests) == 1)
        leave.set()
        assert not (await request).started
        await until(lambda: server.left == 1)


async def test_a_batch_takes_no_urls() -> None:
    async with origin() as server, allowing(server) as service:
        response = await service.client.post("/classify/batch", json={"images": [server.url()]})
        assert response.json()["results"][0]["problem"]["type"] == "/problems/malformed-request"
        assert server.connections == 0


async def test_a_service_that_allows_no_urls_makes_no_fetcher() -> None:
    def make(*_: Any) -> Fetcher:
        raise AssertionError("made")

    async with serving(make_fetch=make) as service:
        problem(await ask(service, "http://example.org/"), 403, "source-forbidden")


async def test_the_fetcher_of_the_service_itself() -> None:
    async with origin({"/": ok(CAT)}) as server, serving(allow_urls=True, url_ports=str(server.port)) as service:
        body = problem(await ask(service, f"http://127.0.0.1:{server.port}/"), 403, "source-forbidden")
        assert body["detail"] == NO_PUBLIC_ADDRESS
        problem(await ask(service, "http://127.1/"), 400, "malformed-request")
        assert server.connections == 0
        assert isinstance(service.parts.fetch, Fetcher)


async def test_what_is_no_url_is_malformed() -> None:
    await refused(fetcher(Origin(1)), "cat.jpg here", MalformedRequest, "ASCII")
