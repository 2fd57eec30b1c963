"""The pages under `app/web`: nothing from another host, no inline script or style, licences beside what was taken in.

It reads files only. Whether a browser shows the pages, and what it then requests, is not seen from here.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from app import problems
from app.routes import pages

WEB = pages.WEB
DOCS = WEB / "docs"
HTML = [WEB / "index.html", DOCS / "swagger-ui.html", DOCS / "redoc.html"]
# The page's own parts: one noun a file.
SCRIPTS = sorted(WEB.glob("*.js"))
SHEETS = sorted(WEB.glob("*.css"))
OURS = [*HTML, *SCRIPTS, *SHEETS, WEB / "favicon.svg",
        *(DOCS / name for name in ("pages.css", "swagger-ui-start.js", "redoc-mark.svg", "README.md"))]  # fmt: skip
VENDORED = {
    "swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js",
    "LICENSE.swagger-ui", "NOTICE.swagger-ui", "LICENSE.redoc", "swagger-ui-bundle.js.LICENSE.txt",
}  # fmt: skip
NAMESPACE = "http://www.w3.org/2000/svg"  # a name, not an address: nothing is loaded from it
LOADING = {"src", "srcset", "poster", "data", "action", "formaction", "spec-url"}


class Page(HTMLParser):
    """What a browser would load, follow or run of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.labelled: set[str] = set()
        self.ids: list[str] = []
        self.inline: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append((tag, given))
        self._inside = tag
        self.inline += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]
        self.loaded += [value for name, value in given.items() if name in LOADING or (name == "href" and tag == "link")]
        self.links += [given["href"]] if tag == "a" else []
        self.ids += [given["id"]] if "id" in given else []
        self.labelled |= {given[name] for name in ("for", "aria-labelledby", "aria-describedby") if name in given}

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"} and data.strip():
            self.inline.append(f"<{self._inside}>")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def test_every_file_is_ours_or_listed_as_taken_in() -> None:
    found = {path.relative_to(WEB).as_posix() for path in WEB.rglob("*") if path.is_file()}
    assert found == {path.relative_to(WEB).as_posix() for path in OURS} | {f"docs/{name}" for name in VENDORED}


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_our_files_name_no_other_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace(NAMESPACE, "")
    # The recipe in the README matches an address by its pattern, and so has to contain the scheme.
    text = text.replace("https://[a-z.]+/redoc/logo-mini", "")
    assert re.findall(r"(?:https?:|wss?:)?//[\w.-]+\.\w+|@import", text) == []


@pytest.mark.parametrize("path", HTML, ids=lambda path: path.name)
def test_pages_have_no_inline_script_or_style(path: Path) -> None:
    assert Page(path).inline == []


def test_the_check_for_inline_code_sees_it(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text('<p style="x" onclick="y"><script>z()</script><style>a{}</style>', encoding="utf-8")
    assert Page(tmp_path / "bad.html").inline == ["p style", "p onclick", "<script>", "<style>"]


@pytest.mark.parametrize("path", HTML, ids=lambda path: path.name)
def test_pages_load_files_that_exist(path: Path) -> None:
    loaded = Page(path).loaded
    assert loaded
    # Relative to the page, so that a prefix before the service does no harm.
    missing = [name for name in loaded if name != "openapi.json" and not (WEB / name.removeprefix("static/")).is_file()]
    assert missing == []
    assert all(name == "openapi.json" or name.startswith("static/") for name in loaded)


@pytest.mark.parametrize("path", HTML, ids=lambda path: path.name)
def test_pages_link_to_routes_that_exist(path: Path) -> None:
    from app.routes import models

    routes = {route.path for router in (pages.router, models.router) for route in router.routes if isinstance(route, APIRoute)}
    assert {"/" + link.removeprefix("./") for link in Page(path).links} <= routes | {"/openapi.json"}


@pytest.mark.parametrize("path", HTML, ids=lambda path: path.name)
def test_pages_are_fit_for_readers_and_small_screens(path: Path) -> None:
    page = Page(path)
    tags = dict(page.tags)
    assert tags["html"]["lang"] == "en"
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert page.labelled <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert [given for tag, given in page.tags if tag == "img" and "alt" not in given] == []


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def imported(script: Path) -> set[str]:
    return set(re.findall(r'^import [^"]*"\./([\w-]+\.js)";$', text_of(script), re.MULTILINE))


def test_the_scripts_use_only_ids_of_the_page() -> None:
    used = {name for script in SCRIPTS for name in re.findall(r'\bat\("([\w-]+)"\)', text_of(script))}
    assert len(used) > 20
    assert used <= set(Page(WEB / "index.html").ids)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_or_code_of_text(path: Path) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|createContextualFragment|setHTML"
    assert re.findall(forbidden, text_of(path)) == []
    assert re.findall(r'setAttribute\("style"|\bstyle: "', text_of(path)) == []  # which the page's policy would refuse


@pytest.mark.parametrize("path", [*SCRIPTS, *SHEETS], ids=lambda path: path.name)
def test_each_file_says_what_it_is_and_is_short(path: Path) -> None:
    lines = text_of(path).splitlines()
    assert lines[0].startswith(("// ", "/* "))
    assert len(lines) <= 250
    assert [line for line in lines if len(line) > 130] == []


def test_every_script_is_reached_from_the_page_and_none_in_a_circle() -> None:
    """Modules are loaded by what imports them; the page names the first, and one that runs before it is drawn."""

    def below(name: str, path: tuple[str, ...]) -> set[str]:
        assert name not in path, f"a circle of imports: {' -> '.join((*path, name))}"
        return {name}.union(*(below(each, (*path, name)) for each in imported(WEB / name)))

    started = [given["src"].removeprefix("static/") for tag, given in Page(WEB / "index.html").tags if tag == "script"]
    assert started == ["theme.js", "page.js"]
    assert below("page.js", ()) | {"theme.js"} == {path.name for path in SCRIPTS}
    assert not [path.name for path in SCRIPTS if re.search(r"\bimport\(|^import .*from \"[^.]", text_of(path), re.MULTILINE)]


def test_every_sheet_is_loaded() -> None:
    assert {path.name for path in SHEETS} == {name.removeprefix("static/") for name in Page(WEB / "index.html").loaded
                                              if name.endswith(".css")}  # fmt: skip


def test_what_is_loaded_ahead_is_every_module() -> None:
    """Else the browser would learn of each module only from the one that imports it, one after the other."""
    links = [given for tag, given in Page(WEB / "index.html").tags if tag == "link" and given["rel"] == "modulepreload"]
    ahead = {given["href"].removeprefix("static/") for given in links}
    assert ahead == {path.name for path in SCRIPTS} - {"theme.js", "page.js"}


def test_there_are_plain_words_for_every_problem_of_an_upload() -> None:
    known = set(re.findall(r'^  "([a-z-]+)": "', text_of(WEB / "problems.js"), re.MULTILINE))
    slugs = {row.slug for row in problems.rows()}
    # What this page cannot meet: it sends no address, loads no model, and asks the right routes.
    unreachable = {"source-forbidden", "source-unreachable", "model-not-found", "not-found", "method-not-allowed",
                   "reference-forbidden", "checkpoint-refused"}  # fmt: skip
    assert slugs - unreachable <= known
    assert known <= slugs


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LICENSE.swagger-ui", "Apache License"),
        ("NOTICE.swagger-ui", "SmartBear"),
        ("LICENSE.redoc", "MIT License"),
        ("swagger-ui-bundle.js.LICENSE.txt", "MIT"),
    ],
)
def test_licences_are_beside_what_was_taken_in(name: str, words: str) -> None:
    assert words in (DOCS / name).read_text(encoding="utf-8")


def test_readme_names_every_file_and_the_versions_inside() -> None:
    readme = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [name for name in VENDORED if name not in readme] == []
    assert "Version: 3.0.1" in (DOCS / "redoc.standalone.js").read_text(encoding="utf-8")[:300]
    assert "`redoc` 3.0.1" in readme
    assert '"5.35.0"' in (DOCS / "swagger-ui-bundle.js").read_text(encoding="utf-8")
    assert "`swagger-ui-dist` 5.35.0" in readme


def test_bundles_are_kept_from_calling_home() -> None:
    redoc = Page(DOCS / "redoc.html")
    assert dict(redoc.tags)["redoc"]["disable-telemetry"] == "true"
    assert dict(redoc.tags)["script"]["type"] == "module"  # as a classic script it fails: it ends in an export
    assert "cdn.redoc.ly" not in (DOCS / "redoc.standalone.js").read_text(encoding="utf-8")
    assert "validatorUrl: null" in (DOCS / "swagger-ui-start.js").read_text(encoding="utf-8")
    assert [path.name for path in DOCS.iterdir() if "sourceMappingURL=" in path.read_text(encoding="utf-8")] == ["README.md"]


@pytest.mark.parametrize("policy", [pages.PAGE_POLICY, pages.DOCS_POLICY])
def test_policies_let_nothing_in_from_another_host(policy: str) -> None:
    directives = {name: set(sources) for name, *sources in (part.split() for part in policy.split(";"))}
    assert directives["default-src"] == {"'none'"}
    assert directives["script-src"] == directives["connect-src"] == {"'self'"}
    assert set.union(*directives.values()) <= {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"}
    assert "'unsafe-inline'" not in set.union(*directives.values()) or policy == pages.DOCS_POLICY
