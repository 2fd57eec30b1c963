"""One Chromium and two services, open and with keys, for all tests here.

All of them end with this folder's last test: Playwright's event loop would otherwise stay the running one of this thread, where
the asynchronous tests of other folders want their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests import images
from tests.browser.visit import Visit
from tests.browser.watch import Watch
from tests.e2e.server import Server, serve

NAMES = ("chromium", "chromium-browser", "google-chrome")
KEY = "a-key-of-somebody-for-the-page"
WIDE, NARROW = (1440, 900), (360, 740)

Visitor = Callable[..., Visit]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium: none of {', '.join(NAMES)} is on PATH")
    args = ["--no-sandbox"] if os.geteuid() == 0 else []  # the sandbox refuses root
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=args)
        yield running
        running.close()


@pytest.fixture(scope="package")
def service() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture(scope="package")
def keyed() -> Iterator[Server]:
    with serve(SKNET_API_KEYS=f"somebody:predict:{KEY}") as running:
        yield running


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """Makes a visit to a service; at the end of the test each is checked for what must not happen."""
    with ExitStack() as stack:

        def make(server: Server | str, size: tuple[int, int] = WIDE, **options: Any) -> Visit:
            url = server if isinstance(server, str) else server.url
            viewport: Any = {"width": size[0], "height": size[1]}
            context = browser.new_context(viewport=viewport, accept_downloads=True, **options)
            stack.callback(context.close)
            context.set_default_timeout(15_000)
            watch = Watch(context, url)
            page = context.new_page()
            stack.callback(watch.check, page)
            return Visit(page, watch, url)

        yield make


@pytest.fixture
def visit(visitor: Visitor, service: Server) -> Visit:
    """A visit to the open service, at its page already."""
    made = visitor(service)
    made.open()
    return made


@pytest.fixture(scope="package")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four photographs, one in the format of phones, one that a camera stored turned, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    made = {
        name: images.encode(images.photograph(name), "JPEG", quality=90) for name in ("chelsea", "astronaut", "coffee", "rocket")
    }
    made["turned"] = images.oriented(images.quadrants((480, 320)), 6, "JPEG", quality=95)
    made["broken"] = b"\xff\xd8\xff\xe0 this is no image"
    for name, data in made.items():
        (folder / f"{name}.jpg").write_bytes(data)
    (folder / "phone.heic").write_bytes(images.heic(images.photograph("coffee")))
    return {name: folder / f"{name}.jpg" for name in made} | {"phone": folder / "phone.heic"}
