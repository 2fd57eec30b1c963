"""Pages for people render with no network: whatever they refer to is served from here."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import httpx
import pytest

from app.problems import rows

REFERENCES = re.compile(r"""(?:src|href|spec-url)\s*=\s*["']([^"'#]+)["']""")


def references(page: str, html: str) -> set[str]:
    """Whatever the page refers to, as the browser resolves it."""
    return {urljoin(f"http://service{page}", found) for found in REFERENCES.findall(html)}


@pytest.mark.parametrize(
    ("path", "needs"),
    [
        ("/docs", {"/static/docs/swagger-ui-bundle.js", "/static/docs/swagger-ui.css"}),
        ("/redoc", {"/static/docs/redoc.standalone.js"}),
        ("/", {"/docs", "/redoc", "/models", "/problems"}),
    ],
)
async def test_a_page_and_everything_it_refers_to(client: httpx.AsyncClient, path: str, needs: set[str]) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    found = references(path, page.text)
    assert {f"http://service{need}" for need in needs} <= found
    for reference in found:
        assert reference.startswith("http://service/")
        asset = await client.get(reference)
        assert asset.status_code == 200, reference
        assert len(asset.content) > 100, reference


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc"])
async def test_the_browser_itself_is_told_to_refuse_other_hosts(client: httpx.AsyncClient, path: str) -> None:
    policy = (await client.get(path)).headers["content-security-policy"]
    directives = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self'"
    sources = {source for allowed in directives.values() for source in allowed.split()}
    assert sources <= {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"}


async def test_assets_are_what_they_say(client: httpx.AsyncClient) -> None:
    for path, media in {
        "/static/docs/swagger-ui-bundle.js": "text/javascript",
        "/static/docs/redoc.standalone.js": "text/javascript",
        "/static/docs/swagger-ui.css": "text/css",
        "/favicon.ico": "image/svg+xml",
    }.items():
        assert (await client.get(path)).headers["content-type"].startswith(media)


@pytest.mark.parametrize("path", ["/static/../main.py", "/static/%2e%2e/main.py", "/static/..%2fmain.py", "/static/docs"])
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_every_kind_of_problem_is_listed(client: httpx.AsyncClient) -> None:
    body = (await client.get("/problems")).json()
    assert [entry["type"] for entry in body] == [f"/problems/{row.slug}" for row in rows()]
    assert len({entry["type"] for entry in body}) == len(body)
    assert {entry["status"] for entry in body} == {400, 401, 403, 404, 405, 406, 408, 413, 415, 422, 429, 500, 503, 504}


async def test_the_address_of_a_problem_explains_it(client: httpx.AsyncClient) -> None:
    missing = (await client.get("/nowhere")).json()
    assert (await client.get(missing["type"])).json() == {"type": "/problems/not-found", "title": "No such route", "status": 404}
    assert (await client.get("/problems/unheard-of")).status_code == 404
