"""What a browser must not do while a test looks elsewhere: log errors, run into exceptions, ask other hosts, break its policy."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, WebError

# Also keeps count of object URLs, which hold memory until they are revoked.
SCRIPT = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI));
window.urls = new Set();
const make = URL.createObjectURL, revoke = URL.revokeObjectURL;
URL.createObjectURL = (blob) => { const url = make.call(URL, blob); urls.add(url); return url; };
URL.revokeObjectURL = (url) => { urls.delete(url); revoke.call(URL, url); };
"""


class Watch:
    """Listens to everything in a context. `allow` names console errors that the test provokes, as patterns."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self._url = url
        self._allowed: list[str] = []
        self._tolerated: list[str] = []
        self.requests: list[Request] = []
        self.errors: list[str] = []
        context.add_init_script(SCRIPT)
        context.on("request", lambda request: self.requests.append(request))
        context.on("console", self._console)
        context.on("weberror", self._exception)

    def allow(self, *patterns: str) -> None:
        """A browser logs every answer that is no success; a test that wants one says so."""
        self._allowed += patterns

    def tolerate(self, *violations: str) -> None:
        """Attempts of scripts that are not ours, which the page's policy stops."""
        self._tolerated += violations

    def check(self, page: Page) -> None:
        """Nothing happened that must not."""
        errors = [error for error in self.errors if not any(re.search(p, error) for p in self._allowed)]
        assert not errors, errors
        asked = [re.sub(r"^(http://)[^/@]*@", r"\1", request.url) for request in self.requests]  # no host stands before an @
        foreign = [url for url in asked if not url.startswith((self._url, "blob:" + self._url))]
        assert not foreign, foreign
        violations = [found for found in page.evaluate("() => violations") if found not in self._tolerated]
        assert not violations, violations

    def sent(self, path: str) -> list[Request]:
        """Requests to a path of the service, whatever their query."""
        return [request for request in self.requests if request.url.removeprefix(self._url).partition("?")[0] == path]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _exception(self, error: WebError) -> None:
        self.errors.append(f"exception: {error.error}")
