"""Pages of other origins: none unless the settings name them, and then they can read every answer, errors too."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import httpx
import pytest

from app.cors import origins_of
from app.settings import Settings, SettingsError, load_settings
from tests.app.asgi import Service, client_of, exchange, http_scope, problem, serving, until
from tests.fakes import FakeModel

PAGE = "https://page.example"
KEY = "a-key-of-16-characters"
RAW = {"Content-Type": "image/png"}


def preflight(method: str = "POST", headers: str = "authorization, content-type", origin: str = PAGE) -> dict[str, str]:
    return {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}


def readable(response: httpx.Response | Any, origin: str = PAGE) -> bool:
    """Whether the browser lets a page of that origin read the answer."""
    assert len(response.headers.get_list("access-control-allow-origin")) <= 1
    assert "access-control-allow-credentials" not in response.headers
    return response.headers.get("access-control-allow-origin") in (origin, "*")


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("*", ("*",)),
        ("https://a.example", ("https://a.example",)),
        (" HTTPS://A.Example:443 , http://b.example:80,http://b.example:8080", ("https://a.example", "http://b.example", "http://b.example:8080")),
        ("http://[::1]:3000,http://localhost:443", ("http://[::1]:3000", "http://localhost:443")),
    ],
)  # fmt: skip
def test_origins_as_browsers_spell_them(text: str, origins: tuple[str, ...]) -> None:
    assert origins_of(load_settings({"cors_origins": text}).cors_origins) == origins


@pytest.mark.parametrize(
    "text",
    ["a.example", "https://", "https://a.example/", "https://a.example/page", "ftp://a.example", "null", "https://*.example",
     "*,https://a.example", "https://a.example https://b.example", "https://a.example,", "https://a:b", "https://u@a.example",
     "https://a.example:123456", "https://a.example\nhttps://b.example"],
)  # fmt: skip
def test_what_is_no_origin_is_told(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKNET_CORS_ORIGINS", text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"SKNET_CORS_ORIGINS is {text!r}: it may be *, or SCHEME://HOST[:PORT] with commas between"


async def test_off_by_default(client: httpx.AsyncClient) -> None:
    for response in (
        await client.get("/models", headers={"Origin": PAGE}),
        await client.options("/classify", headers=preflight()),
    ):
        assert not [name for name in response.headers if name.startswith("access-control")]
    assert response.status_code == 405


async def test_a_page_may_ask_first_without_a_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sknet.access")
    async with serving(cors_origins=PAGE, api_keys=KEY, rate_limit=0.001, rate_burst=1) as service:
        wanted = "authorization, x-api-key, x-request-id, x-timeout-ms, content-type"
        for _ in range(3):  # and is not counted
            response = await service.client.options("/classify", headers=preflight(headers=wanted))
            assert response.status_code == 200
            assert readable(response)
            allowed = response.headers["access-control-allow-headers"].lower()
            assert set(wanted.split(", ")) <= set(allowed.split(", "))
        assert response.headers["x-request-id"]
        for bad in (preflight(origin="https://other.example"), preflight("DELETE"), preflight(headers="x-other")):
            assert (await service.client.options("/classify", headers=bad)).status_code == 400
        problem(await service.client.options("/classify", headers={"Origin": PAGE}), 401, "unauthorised")  # no preflight
    assert caplog.messages.count("OPTIONS /classify 200") == 3


async def answers(service: Service) -> list[tuple[httpx.Response, str]]:
    """An answer of every part of the service that answers at all, with the slug of its problem."""
    send, key = service.client.request, {"Origin": PAGE, "X-API-Key": KEY}
    slow = threading.Event()
    service.model.gate = slow
    waiting = asyncio.create_task(send("POST", "/classify", content=b"x", headers=key | RAW))
    await until(lambda: service.parts.classifier._current().scheduler.admitted == 1)
    found = [(await send("POST", "/classify", content=b"x", headers=key | RAW), "overloaded")]
    slow.set()
    found += [(await waiting, "")]
    found += [
        (await send("POST", "/classify", content=b"x", headers={"Origin": PAGE}), "unauthorised"),
        (await send("POST", "/models/default/load", headers=key), "scope-forbidden"),
        (await send("POST", "/classify", content=b"x" * 101, headers=key | RAW), "body-too-large"),
        (await send("POST", "/classify", content=b"bad", headers=key | RAW), "image-undecodable"),
        (await send("POST", "/classify", content=b"bug", headers=key | RAW), "internal-error"),
        (await send("POST", "/classify", headers=key | {"X-Timeout-Ms": "soon"}), "invalid-parameter"),
        (await send("GET", "/nowhere", headers=key), "not-found"),
        (await send("GET", "/models", headers=key), ""),
        (await send("GET", "/livez", headers={"Origin": PAGE}), ""),
        (await send("GET", "/static/style.css", headers={"Origin": PAGE}), ""),
    ]
    service.model.gate = None
    return found


async def test_every_answer_can_be_read_by_the_page_that_asked() -> None:
    async with serving(
        FakeModel(), cors_origins=f"https://other.example,{PAGE}", api_keys=KEY, max_queue=1, max_body_bytes=100
    ) as service:
        for response, slug in await answers(service):
            assert readable(response), slug
            assert response.headers["vary"] == "Origin"
            exposed = response.headers["access-control-expose-headers"].split(", ")
            assert {"X-Request-ID", "Server-Timing", "Retry-After"} <= set(exposed)
            assert response.headers["x-request-id"]
            if slug:
                problem(response, response.status_code, slug)
            else:
                assert response.status_code == 200
        stranger = await service.client.get("/livez", headers={"Origin": "https://stranger.example"})
        assert not readable(stranger, "https://stranger.example")


async def test_who_asks_too_often_can_read_that() -> None:
    async with serving(cors_origins=PAGE, rate_limit=0.001, rate_burst=1) as service:
        first, second = [await service.client.get("/models", headers={"Origin": PAGE}) for _ in range(2)]
        assert first.status_code == 200
        assert readable(first)
        problem(second, 429, "rate-limited")
        assert readable(second)
        assert second.headers["retry-after"] == "1000"


async def test_all_origins_and_never_with_credentials() -> None:
    async with serving(cors_origins="*") as service:
        response = await service.client.get("/models", headers={"Origin": PAGE, "Cookie": "a=b"})
        assert response.headers["access-control-allow-origin"] == "*"
        assert readable(response)
        assert readable(await service.client.options("/classify", headers=preflight()))


async def test_a_fault_that_nobody_foresaw_can_be_read_too() -> None:
    from app.main import create_app

    app = create_app(Settings(cors_origins=PAGE), load=lambda _: FakeModel())
    del app.state.services  # every route fails
    async with client_of(app) as client:
        response = await client.get("/readyz", headers={"Origin": PAGE})
    problem(response, 500, "internal-error")
    assert readable(response)


async def test_other_protocols_pass_untouched() -> None:
    async with serving(cors_origins="*") as service:
        got = await exchange(service.app, http_scope("OPTIONS", "/classify"))
        assert got.status_code == 405  # OPTIONS of no page is no preflight
