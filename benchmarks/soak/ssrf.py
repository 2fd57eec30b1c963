"""The table of server-side request forgery: `python -m benchmarks.soak.ssrf`.

Sends every disguise of `tests/ssrf.py` to a service that runs and allows URLs, with a listener on loopback at the port they
name; then, in this process and with a resolver that answers as told, the names, redirects and rebindings. Exit status 1 where
one was not refused, or the listener was ever called.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
from collections.abc import Sequence

import httpx

from app.errors import AppError
from app.exchange import REDIRECTS
from app.problems import row_of
from benchmarks.report import markdown
from tests.app.origin import HOST, Names, Origin, context, fetcher, ok, origin, redirect
from tests.e2e.server import serve
from tests.ssrf import DISGUISES, FORBIDDEN, LOCATIONS, MALFORMED, RESOLVED

REFUSED = {FORBIDDEN: 403, MALFORMED: 400}
Rows = list[Sequence[str]]


def shown(text: str) -> str:
    """A URL as it can stand in a table: what does not print is escaped, what is endless cut."""
    plain = json.dumps(text, ensure_ascii=not text.isprintable())[1:-1].replace("|", "\\|")
    return f"`{plain if len(plain) < 70 else plain[:60] + '...'}`"


async def disguises(canary: Origin) -> tuple[Rows, int]:
    """Every disguise sent to a real service over HTTP, each aimed at the listener's port."""
    rows: Rows = [("disguise", "what it is", "answer")]
    failed = 0
    with serve(SKNET_ALLOW_URLS="true", SKNET_URL_PORTS=f"80,443,{canary.port}") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as client:
            for disguise in DISGUISES:
                url = disguise.at(f":{canary.port}")
                answer = await client.post("/classify", json={"url": url})
                slug = answer.json()["type"].removeprefix("/problems/")
                failed += answer.status_code != REFUSED.get(slug)
                rows.append((shown(url), disguise.what, f"{answer.status_code} {slug}"))
    return rows, failed


async def names(server: Origin, canary: Origin) -> tuple[Rows, int]:
    """Names whose addresses are not public, and one that changes its mind."""
    rows: Rows = [("the resolver answers", "what it is", "answer")]
    failed = 0
    for name in RESOLVED:
        known = Names({name.host: [name.addresses]})
        answer = await _outcome(server, known, canary.url("/cat", host=name.host), f",{canary.port}")
        failed += answer != FORBIDDEN
        rows.append((", ".join(name.addresses[:3]) or "nothing", name.what, answer))
    rebinding = Names({HOST: [("127.0.0.1",), ("10.0.0.1",)]})
    first, second = [await _outcome(server, rebinding, server.url("/cat")) for _ in range(2)]
    failed += (first, second, len(rebinding.asked)) != ("fetched", FORBIDDEN, 2)
    rows.append(("public, then 10.0.0.1", "rebinding between two requests, each resolved once", f"{first}, then {second}"))
    server.replies["/"] = redirect("/cat")
    rebinding = Names({HOST: [("127.0.0.1",), ("10.0.0.1",)]})
    answer = await _outcome(server, rebinding, server.url())
    failed += answer != FORBIDDEN
    rows.append(("public, then 10.0.0.1", "rebinding between a request and its redirect", answer))
    return rows, failed


async def redirects(server: Origin, canary: Origin) -> tuple[Rows, int]:
    """A public server that sends on, with each status that does."""
    rows: Rows = [("redirect to", "what it is", *map(str, sorted(REDIRECTS)))]
    failed = 0
    cases = [("/cat", "the same server, which may be"), *LOCATIONS, ("/", "a loop")]
    for location, what in cases:
        where = location.replace("PORT", f":{canary.port}")
        answers = []
        for code in sorted(REDIRECTS):
            server.replies["/"] = redirect(where, code)
            known = Names({HOST: [("127.0.0.1",)], "private.example.org": [("10.0.0.1",)]})
            answers.append(await _outcome(server, known, server.url(), f",{canary.port}"))
        failed += any(answer != ("fetched" if location == "/cat" else FORBIDDEN) for answer in answers)
        rows.append((shown(where), what, *answers))
    return rows, failed


async def _outcome(server: Origin, known: Names, url: str, more_ports: str = "") -> str:
    try:
        await fetcher(server, known, url_ports=f"80,{server.port}{more_ports}")(url, context())
    except AppError as error:
        return row_of(type(error)).slug
    return "fetched"


async def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    async with origin({"/cat": ok(b"cat")}) as server, origin() as canary:
        v6 = await _on_v6(canary)
        sections = {
            "Disguises, sent to a running service": await disguises(canary),
            "Names, with a resolver of the test": await names(server, canary),
            "Redirects of a public server": await redirects(server, canary),
        }
        if v6 is not None:
            v6.close()
    for title, (rows, failed) in sections.items():
        print(f"## {title}: {len(rows) - 1}, {failed} not as they should be\n\n{markdown(rows)}\n")
    print(f"Connections to the listener on loopback: {canary.connections}")
    failed = sum(count for _, count in sections.values())
    print(
        json.dumps({"cases": sum(len(rows) - 1 for rows, _ in sections.values()), "failed": failed, "calls": canary.connections})
    )
    return 1 if failed or canary.connections else 0


async def _on_v6(canary: Origin) -> asyncio.Server | None:
    """The listener on ::1 as well, where the machine has it."""
    if not socket.has_ipv6:
        return None
    try:
        return await asyncio.start_server(canary.serve, "::1", canary.port)
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
