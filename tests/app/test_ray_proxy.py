"""What Ray's proxies say for themselves becomes a problem that may be tried again; what replicas say passes."""

from __future__ import annotations

import httpx
import pytest
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.client_errors import NotReady
from app.client_failures import Answer, failure_of
from app.ray_proxy import LOST, RAYS_OWN, Answers, middlewares


async def ask(app: ASGIApp, path: str = "/classify", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(Answers(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
        return await client.post(path, content=b"", headers=headers)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """As Ray's proxy does where the replica is gone: it returns without an answer."""
    scope["headers"].append((b"x-request-id", b"of-ray"))


def test_ray_gets_it_by_this_name() -> None:
    (middleware,) = middlewares()
    assert isinstance(middleware, Middleware)
    assert repr(middleware) == "Middleware(Answers)"


async def test_a_request_whose_replica_died_may_be_sent_again() -> None:
    answer = await ask(nothing)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["x-request-id"] == "of-ray"
    assert answer.json()["type"] == "/problems/not-ready"
    assert answer.json()["reasons"] == [LOST]
    failure = failure_of(Answer(answer.status_code, answer.headers, answer.content))
    assert isinstance(failure, NotReady)
    assert failure.temporary


@pytest.mark.parametrize("status", RAYS_OWN)
async def test_so_may_one_that_found_no_replica(status: int) -> None:
    answer = await ask(PlainTextResponse("Request dropped due to backpressure (num_queued_requests=256)", status))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["reasons"] == [RAYS_OWN[status]]
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize("status", [200, 404, 408, 413, 429, 500, 503])
async def test_the_answers_of_a_replica_pass_with_one_id(status: int) -> None:
    async def replica(scope: Scope, receive: Receive, send: Send) -> None:
        response = Response(b"as it is", status, {"Server-Timing": "total;dur=1", "X-Request-ID": "ours", "Retry-After": "7"})
        response.headers.append("X-Request-ID", "of-ray")
        await response(scope, receive, send)

    answer = await ask(replica)
    assert (answer.status_code, answer.content) == (status, b"as it is")
    assert answer.headers.get_list("x-request-id") == ["ours"]
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_other_answers_of_ray_pass(status: int) -> None:
    answer = await ask(PlainTextResponse("of Ray", status))
    assert (answer.status_code, answer.text) == (status, "of Ray")


@pytest.mark.parametrize("path", ["/-/healthz", "/-/routes"])
async def test_rays_own_pages_pass(path: str) -> None:
    answer = await ask(PlainTextResponse("This node is being drained.", 503), path)
    assert (answer.status_code, answer.text) == (503, "This node is being drained.")


@pytest.mark.parametrize("path", ["/v2/models/default/infer", "/hf", "/"])
async def test_clients_of_other_protocols_are_refused_in_their_form(path: str) -> None:
    answer = await ask(nothing, path)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/json")
    assert list(answer.json()) == ["error"]


async def test_an_answer_that_broke_off_is_not_begun_again() -> None:
    messages = []

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"server-timing", b"total;dur=1")]})

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        messages.append(message)

    await Answers(broken)({"type": "http", "path": "/classify", "headers": []}, receive, send)
    assert len(messages) == 1
