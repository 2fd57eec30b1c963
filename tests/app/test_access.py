"""Who may do what: the table of what is open, keys and scopes, rates, and tricks with paths."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.routing import Mount

from app import access
from app.access import OPEN, OPEN_BELOW, gate_of, needed
from app.context import SCOPE_KEY, Deadline, RequestContext
from app.errors import RateLimited, ScopeForbidden, Unauthorised
from app.keys import Keys
from app.logs import ConsoleFormatter, JsonFormatter
from app.main import create_app
from app.rates import Rates
from app.settings import OWN, OWN_OF, Settings
from tests.app.asgi import Service, exchange, http_scope, part, problem, serving
from tests.fakes import FakeModel

WEB, OPS, BOTH, WRONG = (
    "web-key-of-16-characters",
    "ops-key-of-16-characters",
    "both-key-of-16-characters",
    "some-other-key-of-16",
)
KEYS = f"web:predict:{WEB},ops:admin:{OPS},both:predict+admin:{BOTH}"
RAW = {"Content-Type": "image/png"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def keyed(**settings: Any) -> Any:
    return serving(api_keys=KEYS, **settings)


def asked(gate: Any, method: str, path: str, client: str | None = "192.0.2.1", *, key: str | None = None, root: str = "") -> Any:
    """What a gate says to one request."""
    scope = http_scope(method, path, headers={} if key is None else {"X-API-Key": key})
    scope |= {"root_path": root, "client": None if client is None else (client, 1)}
    scope[SCOPE_KEY] = RequestContext("an-id", Deadline(0, 10))
    return gate(scope)


# the table


PLACED = frozenset({"/vertex/health"})  # probes that the settings place


def routes() -> list[tuple[str, str]]:
    """Method and path of every route there is; of a mounted folder GET alone."""
    found: list[tuple[str, str]] = []
    waiting: list[Any] = list(create_app(Settings(), load=lambda _: FakeModel()).routes)
    while waiting:
        route = waiting.pop()
        if hasattr(route, "original_router"):
            waiting += route.original_router.routes
        else:
            path = route.path + "/" if isinstance(route, Mount) else route.path
            found += [(method, path) for method in getattr(route, "methods", None) or ["GET"]]
    assert {("POST", "/classify"), ("GET", "/docs"), ("GET", "/static/"), ("GET", "/openapi.json")} <= set(found)
    return found


def test_every_route_is_where_it_should_be() -> None:
    """Whoever adds a route has to say here whom it is for."""
    scopes: dict[str | None, set[tuple[str, str]]] = {}
    for method, path in routes():
        if method != "HEAD":
            scopes.setdefault(needed(method, path, PLACED), set()).add((method, path))
    assert scopes.pop("predict") == {
        ("POST", "/classify"),
        ("POST", "/classify/batch"),
        ("POST", "/explain"),
        ("GET", "/models"),
        ("GET", "/models/{name}"),
        ("POST", "/hf"),
        ("POST", "/invocations"),
        ("POST", "/vertex/predict"),
        ("GET", "/v2"),
        *(("GET", f"/v2/models/{{name}}{rest}") for rest in ("", "/ready", "/versions/{version}", "/versions/{version}/ready")),
        *(("POST", f"/v2/models/{{name}}{rest}") for rest in ("/infer", "/versions/{version}/infer")),
        ("POST", "/v2/repository/index"),
    }
    loads = {f"{start}/{{name}}/{end}" for start in ("/models", "/v2/repository/models") for end in ("load", "unload")}
    assert {path for _, path in scopes.pop("admin", set())} <= loads
    assert all(method == "GET" for method, _ in scopes.pop(None))
    assert scopes == {}


def test_the_table_opens_nothing_that_is_not_there() -> None:
    """A row without a route is a hole for the next route of that name."""
    paths = {path for _, path in routes()}
    assert paths >= OPEN
    for prefix in OPEN_BELOW:
        assert any(path.startswith(prefix) for path in paths)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY", "get", "PROPFIND"])
@pytest.mark.parametrize("path", [*sorted(OPEN), "/static/page.js", "/problems/overloaded"])
def test_only_looking_is_open(method: str, path: str) -> None:
    assert needed(method, path) is not None
    assert needed("GET", path) is None
    assert needed("HEAD", path) is None


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/models/default/load", "admin"), ("POST", "/models/default/unload", "admin"),
        ("POST", "/models/default/anything", "admin"), ("POST", "/models//load", "admin"), ("POST", "/models/a/b/c", "admin"),
        ("POST", "/models/default/load\n", "admin"), ("POST", "/models/default/load/", "admin"),
        ("GET", "/models/default/load", "predict"), ("POST", "/models/default", "predict"), ("POST", "/models", "predict"),
        ("GET", "/a-route-of-tomorrow", "predict"), ("POST", "/a-route-of-tomorrow", "predict"), ("GET", "", "predict"),
        ("POST", "/", "predict"), ("GET", "/static", "predict"), ("GET", "/problemsx", "predict"), ("GET", "/livez/", "predict"),
        ("GET", "/Livez", "predict"), ("GET", "//livez", "predict"), ("GET", "/livez\n", "predict"), ("GET", "/pong", "predict"),
        ("GET", "/v2", "predict"),
        ("POST", "/v2/repository/models/default/load", "admin"), ("POST", "/v2/repository/index", "predict"),
    ],
)  # fmt: skip
def test_what_a_request_needs(method: str, path: str, scope: str) -> None:
    assert needed(method, path) == scope


def test_no_route_is_where_the_settings_may_place_another() -> None:
    """Vertex AI says where it asks, and settings that name a path of ours are refused: all of ours have to be known there."""
    ours = {path.split("/")[1] for _, path in routes() if not path.startswith("/vertex/")}
    assert ours - {""} <= OWN.union(*OWN_OF.values())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_probe_is_open_where_the_settings_place_it(method: str) -> None:
    assert needed(method, "/up", frozenset({"/up"})) is None
    assert needed(method, "/up") == "predict"
    for path in ("/up/", "/up/x", "//up", "/Up", "/up\n"):
        assert needed(method, path, frozenset({"/up"})) == "predict"
    assert needed("POST", "/up", frozenset({"/up"})) == "predict"


@pytest.mark.parametrize("keys", [None, KEYS])
async def test_a_probe_that_the_settings_place_counts_for_no_rate_and_needs_no_key(keys: str | None) -> None:
    placed: dict[str, Any] = {"vertex_health_route": "/up", "vertex_predict_route": "/up"}
    async with serving(api_keys=keys, rate_limit=0.001, rate_burst=1, **placed) as service:
        for _ in range(3):
            assert (await service.client.get("/up")).status_code == 200
        assert (await service.client.post("/up", json={})).status_code == (400 if keys is None else 401)
        assert (await service.client.get("/vertex/health")).status_code == (429 if keys is None else 401)


# tricks: what comes to a closed route is asked for a key, however its path was spelt


SPELLINGS = [
    "//models", "/models/", "/./models", "/livez/../models", "/static/../models", "/static/..%2fmodels", "/static/%2e%2e/models",
    "/problems/../models", "/%6dodels", "/models%2f", "/models%00", "/models%0a", "/MODELS", "/models;a=b", "/models?x=/livez",
    "/docs/..%2fmodels", "/%2e/models", "/\\models", "/models/default", "/models%2fdefault", "/models/default%0a",
    "/models/default/load", "/static/../models/default/load", "/models%2Fdefault%2Fload", "/livez%0a", "/openapi.json/",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PUT"])
async def test_no_spelling_of_a_path_opens_a_closed_route(method: str) -> None:
    async with keyed() as service:
        for target in SPELLINGS:
            path, _, query = target.partition("?")
            scope = http_scope(method, unquote(path), query=query)  # as the server decodes it
            got = await exchange(service.app, scope, [part(b"")])
            if got.status_code != 401:  # a file that is not there
                assert scope["path"].startswith(("/static/", "/problems/")), target
                assert got.status_code == 404
            assert b"skfake" not in got.content


@given(st.text(alphabet="/.%\\\n \tadelmosvz{}~:;", max_size=25))
def test_what_is_open_is_a_route_that_is_open(path: str) -> None:
    if needed("GET", path) is None:
        assert path in OPEN or path.startswith(("/static/", "/problems/"))
    assert needed("POST", path) is not None


@pytest.mark.parametrize(
    ("root", "path"), [("/v1", "/v1/models/a/load"), ("", "/models/a/load"), ("/v1/x", "/v1/x/models/a/load")]
)
def test_below_a_prefix_it_is_the_same(root: str, path: str) -> None:
    gate = gate_of(Keys(KEYS, None), None, open_admin=False)
    assert isinstance(asked(gate, "POST", path, key=WEB, root=root), ScopeForbidden)
    assert asked(gate, "POST", path, key=OPS, root=root) is None
    assert asked(gate, "GET", f"{root}/livez", root=root) is None
    if root:
        assert isinstance(asked(gate, "GET", "/v1livez", root=root), Unauthorised)


# keys


async def classify(service: Service, headers: dict[str, str]) -> httpx.Response:
    return await service.client.post("/classify", content=b"x", headers=RAW | headers)


@pytest.mark.parametrize(
    "headers",
    [bearer(WEB), {"X-API-Key": WEB}, {"Authorization": f"bearer {WEB}"}, {"Authorization": f"BEARER   {WEB} "},
     {"x-api-key": WEB, "Authorization": "Basic dXNlcjpwYXNz"}, bearer(WEB) | {"X-API-Key": WEB}, bearer(BOTH)],
)  # fmt: skip
async def test_a_key_opens(headers: dict[str, str]) -> None:
    async with keyed() as service:
        assert (await classify(service, headers)).status_code == 200
        assert (await service.client.get("/models", headers=headers)).status_code == 200
        assert (await service.client.head("/models/default", headers=headers)).status_code == 200
        assert (await service.client.get("/nowhere", headers=headers)).status_code == 404


@pytest.mark.parametrize(
    ("headers", "given"),
    [
        ({}, False), ({"Authorization": "Basic dXNlcjpwYXNz"}, False), ({"Authorization": WEB}, False), ({"Cookie": WEB}, False),
        ({"Authorization": "Bearer"}, False), (bearer(WRONG), True), ({"X-API-Key": ""}, True), (bearer("web"), True),
        ({"X-API-Key": f"Bearer {WEB}"}, True), (bearer(WEB) | {"X-API-Key": WRONG}, True), (bearer("x" * 60_000), True),
        (bearer(WEB.upper()), True),
        (bearer(WEB) | {"X-API-Key": BOTH}, True), ({"X-API-Key": "ä" * 20}, True), (bearer(f"{WEB}, {WEB}"), True),
    ],
)  # fmt: skip
async def test_anything_else_does_not(headers: dict[str, str], given: bool) -> None:
    async with keyed() as service:
        for method, path in (("POST", "/classify"), ("GET", "/models"), ("HEAD", "/models"), ("GET", "/nowhere"), ("POST", "/")):
            got = await exchange(service.app, http_scope(method, path, headers=headers), [part(b"")])
            assert got.status_code == 401
            challenge = 'Bearer realm="sknet"' + (', error="invalid_token"' if given else "")
            assert got.headers["www-authenticate"] == challenge
        body = problem(await classify(service, {k: v for k, v in headers.items() if v.isascii()}), 401, "unauthorised")
        assert WEB not in str(body)
        assert service.model.prepared == []


async def test_two_headers_of_different_keys_are_none() -> None:
    async with keyed() as service:
        scope = http_scope("GET", "/models")
        scope["headers"] += [(b"x-api-key", WEB.encode()), (b"x-api-key", WRONG.encode())]
        assert (await exchange(service.app, scope, [part(b"")])).status_code == 401


async def test_a_key_in_the_address_is_none() -> None:
    async with keyed() as service:
        assert (await service.client.get(f"/models?api_key={WEB}&x-api-key={WEB}&access_token={WEB}")).status_code == 401


async def test_what_is_open_stays_open() -> None:
    async with keyed() as service:
        for path in (*OPEN, "/problems/unauthorised", "/static/page.js"):
            for headers in ({}, bearer(WRONG)):
                assert (await service.client.get(path, headers=headers)).status_code == 200, path
                assert (await service.client.head(path, headers=headers)).status_code == 200, path


async def test_scopes() -> None:
    async with keyed() as service:
        ask = service.client.request
        calls = [(OPS, "POST", "/classify", "predict"), (OPS, "GET", "/models", "predict")]
        for key, method, path, scope in (*calls, (WEB, "POST", "/models/default/load", "admin")):
            response = await ask(method, path, headers=bearer(key))
            body = problem(response, 403, "scope-forbidden")
            assert body["allowed"] == [scope]
            assert response.headers["www-authenticate"] == f'Bearer realm="sknet", error="insufficient_scope", scope="{scope}"'
        for key in (OPS, BOTH):
            assert (await ask("POST", "/models/default/load", headers=bearer(key))).status_code not in (401, 403)


async def test_admin_calls_without_keys_are_closed_unless_opened() -> None:
    for closed in (True, False):
        async with serving(open_admin=not closed) as service:
            for path in ("/models/default/unload", "/models/other/load", "/models/default/load%0a", "/models/default/load"):
                response = await service.client.post(path, json={"checkpoint": "bundled:cifar10"})
                if closed:
                    assert "SKNET_OPEN_ADMIN" in problem(response, 403, "scope-forbidden")["detail"]
                else:
                    assert response.status_code not in (401, 403)
            assert (await classify(service, {})).status_code == 200
            assert (await service.client.get("/models")).status_code == 200
            assert (await service.client.post("/models")).status_code == 405


async def test_keys_close_admin_calls_whatever_the_settings_open() -> None:
    async with keyed(open_admin=True) as service:
        problem(await service.client.post("/models/default/load"), 401, "unauthorised")
        problem(await service.client.post("/models/default/load", headers=bearer(WEB)), 403, "scope-forbidden")


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),  # no browser
        ({"Origin": "http://sknet.test"}, False), ({"Origin": "HTTP://SKNET.TEST"}, False),
        ({"Origin": "http://evil.test"}, True), ({"Origin": "null"}, True), ({"Origin": ""}, True),
        ({"Origin": "http://sknet.test.evil.test"}, True), ({"Origin": "http://sknet.test:81"}, True),
    ],
)  # fmt: skip
def test_a_page_from_elsewhere_makes_no_admin_calls_for_its_reader(headers: dict[str, str], refused: bool) -> None:
    gate = gate_of(None, None, open_admin=True)
    for path, count in (("/models/default/unload", refused), ("/classify", False)):
        scope = http_scope("POST", path, headers={"Host": "sknet.test", **headers})
        assert isinstance(gate(scope), ScopeForbidden) is count


# before the body, and with its courtesy


async def test_a_large_body_is_refused_unread_and_a_small_one_keeps_the_connection() -> None:
    async with keyed() as service:
        scope = http_scope(headers={"Content-Length": "300000"})
        got = await exchange(service.app, scope, [part(bytes(100_000), more=i < 2) for i in range(3)])
        problem(got, 401, "unauthorised")
        assert (got.received_first, got.received, got.headers["connection"]) == (0, 3, "close")
        got = await exchange(service.app, http_scope(headers={"Content-Length": "3"}), [part(b"abc")])
        problem(got, 401, "unauthorised")
        assert "connection" not in got.headers


async def test_strangers_learn_of_keys_first_and_of_nothing_else() -> None:
    async with keyed(max_body_bytes=10, max_queue=1) as service:
        got = await exchange(service.app, http_scope(headers={"Content-Length": "11"}), [part(bytes(11))])
        problem(got, 401, "unauthorised")


# what is logged


@pytest.mark.parametrize("formatter", [JsonFormatter(), ConsoleFormatter()])
async def test_the_name_is_logged_and_never_the_key(formatter: logging.Formatter, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with keyed() as service:
        await classify(service, bearer(WEB))
        await classify(service, {"X-API-Key": OPS})
        await classify(service, bearer(WRONG))
        await service.client.get("/models/default", headers=bearer(BOTH))
    lines = [record for record in caplog.records if record.name == "sknet.access"]
    assert [vars(line)["key"] for line in lines] == ["web", "ops", None, "both"]
    for record in caplog.records:
        text = formatter.format(record)
        assert not [key for key in (WEB, OPS, BOTH, WRONG) if key in text]
    if isinstance(formatter, JsonFormatter):
        assert json.loads(formatter.format(lines[0]))["key"] == "web"
        assert "key" not in json.loads(formatter.format(lines[2]))


def test_settings_do_not_show_keys() -> None:
    settings = Settings(api_keys=SecretStr(KEYS))
    for text in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert WEB not in text


# rates


def test_a_rate_is_each_keys_own() -> None:
    gate = gate_of(Keys(KEYS, None), Rates(0.001, 2), open_admin=False)
    for key in (WEB, BOTH):
        said = [asked(gate, "GET", "/models", f"192.0.2.{i}", key=key) for i in range(4)]
        assert [type(each) for each in said] == [type(None), type(None), RateLimited, RateLimited]
    assert asked(gate, "GET", "/livez", key=WEB) is None
    assert asked(gate, "GET", "/docs") is None


def test_refusals_for_want_of_a_scope_count() -> None:
    gate = gate_of(Keys(KEYS, None), Rates(0.001, 1), open_admin=False)
    assert isinstance(asked(gate, "GET", "/models", key=OPS), ScopeForbidden)
    assert isinstance(asked(gate, "GET", "/models", key=OPS), RateLimited)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True), ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True), ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True), ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True), ("192.0.2.1", "key web", False),
        ("not:an:address", "not:an:address", True), ("", "", True),
    ],
)  # fmt: skip
def test_without_keys_it_is_each_addresss_own(one: str, other: str, same: bool) -> None:
    gate = gate_of(None, Rates(0.001, 1), open_admin=True)
    assert asked(gate, "POST", "/classify", one) is None
    assert (asked(gate, "POST", "/classify", other) is not None) == same
    assert asked(gate, "GET", "/livez", one) is None
    assert asked(gate, "GET", "/static/page.js", one) is None


def test_a_client_without_an_address() -> None:
    gate = gate_of(None, Rates(0.001, 1), open_admin=True)
    assert [asked(gate, "GET", "/models", None) is None for _ in range(2)] == [True, False]


def test_guessing_is_limited_and_learns_nothing_after_that() -> None:
    gate = gate_of(Keys(KEYS, None), Rates(0.001, 3), open_admin=False)
    assert asked(gate, "GET", "/models", key=BOTH) is None  # used from there before
    said = [asked(gate, "GET", "/models", key=f"{WRONG}{i}") for i in range(5)]
    assert [type(each) for each in said] == [Unauthorised] * 3 + [RateLimited] * 2
    assert isinstance(asked(gate, "GET", "/models", key=WEB), RateLimited)  # the right one, and it does not hear that
    assert asked(gate, "GET", "/models", "192.0.2.2", key=WEB) is None
    assert asked(gate, "GET", "/models", key=BOTH) is None  # whoever shares the address is not locked out
    assert isinstance(asked(gate, "GET", "/models"), Unauthorised)  # no guess


def test_what_is_remembered_of_good_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST_PAIRS", 5)
    gate: Any = gate_of(Keys(KEYS, None), Rates(1000, 1000), open_admin=False)
    for i in range(20):
        assert asked(gate, "GET", "/models", f"192.0.2.{i}", key=WEB) is None
    assert len(gate._pairs) == 5


async def test_too_many_requests_are_told_when_to_come_back() -> None:
    async with serving(rate_limit=0.5, rate_burst=2) as service:
        statuses = [(await classify(service, {})).status_code for _ in range(2)]
        refused = await classify(service, {})
        assert statuses == [200, 200]
        assert problem(refused, 429, "rate-limited")["limit"] == 0.5
        assert refused.headers["retry-after"] in ("1", "2")
        assert service.metric("sknet_rejected_total", reason="rate-limited") == 1
        assert (await service.client.get("/readyz")).status_code == 200
        assert (await service.client.get("/metrics")).status_code == 200


async def test_a_batch_is_one_request() -> None:
    async with serving(rate_limit=0.001, rate_burst=1) as service:
        files = [("files", (str(i), b"x")) for i in range(8)]
        assert (await service.client.post("/classify/batch", files=files)).status_code == 200
        problem(await service.client.post("/classify/batch", files=files), 429, "rate-limited")
