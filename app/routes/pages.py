"""Pages for people: `/`, `/docs`, `/redoc`, `/problems`. Every asset is served from here; nothing is fetched from elsewhere.

It does not know what the pages show: they are static files that call the public API. Each page's content security policy
makes the browser itself refuse other hosts, whatever a bundled script may try.
"""

from __future__ import annotations

from os import PathLike, stat_result
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.problems import PREFIX, rows

WEB = Path(__file__).parent.parent / "web"
router = APIRouter(include_in_schema=False)

_OURS_ONLY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_POLICY = f"{_OURS_ONLY}; style-src 'self'; img-src 'self' blob:"  # blob: is the preview of the chosen image
# Swagger UI and ReDoc write style elements as they go, and carry icons as data; ReDoc searches in a worker made of a blob.
DOCS_POLICY = (
    f"{_OURS_ONLY}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:"
)


@router.get("/")
async def page() -> FileResponse:
    """The page for people."""
    return _html("index.html", PAGE_POLICY)


@router.get("/favicon.ico")
async def favicon() -> FileResponse:
    """The mark of the service."""
    return FileResponse(WEB / "favicon.svg", media_type="image/svg+xml")


@router.get("/docs")
async def docs() -> FileResponse:
    """Swagger UI: every route, to read and to try."""
    return _html("docs/swagger-ui.html", DOCS_POLICY)


@router.get("/redoc")
async def redoc() -> FileResponse:
    """ReDoc: every route, to read."""
    return _html("docs/redoc.html", DOCS_POLICY)


@router.get("/problems")
async def problems() -> list[dict[str, Any]]:
    """Every kind of problem the service answers with."""
    return [{"type": PREFIX + row.slug, "title": row.title, "status": row.status} for row in rows()]


@router.get("/problems/{slug}")
async def problem(slug: str) -> dict[str, Any]:
    """What the `type` of a problem document points at."""
    for each in await problems():
        if each["type"] == PREFIX + slug:
            return each
    raise HTTPException(404)


def mount_static(app: FastAPI) -> None:
    """Serve `web/` under `/static`."""
    app.mount("/static", _Assets(directory=WEB), name="static")


class _Assets(StaticFiles):
    """Files that a browser may keep but must ask about, so that a page never meets the scripts of another version."""

    def file_response(
        self, full_path: str | PathLike[str], stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update({"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"})
        return response


def _html(name: str, policy: str) -> FileResponse:
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return FileResponse(WEB / name, headers=headers, media_type="text/html")
