"""URLs in one spelling only: what is read, and that any other text is refused."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import AppError, MalformedRequest, SourceForbidden
from app.urls import Target, join, parse


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("http://example.org", Target("http", "example.org", 80, "/"), "example.org"),
        ("HTTPS://Example.ORG:443/A?b=[c]&d={e}|f#g", Target("https", "example.org", 443, "/A?b=[c]&d={e}|f"), "example.org"),
        ("http://example.org:8080?x", Target("http", "example.org", 8080, "/?x"), "example.org:8080"),
        ("https://example.org:80#x", Target("https", "example.org", 80, "/"), "example.org:80"),
        ("http://a_b.xn--bcher-kva.example/%20@", Target("http", "a_b.xn--bcher-kva.example", 80, "/%20@"), None),
        ("http://8.8.8.8/..//x", Target("http", "8.8.8.8", 80, "/..//x", ip_address("8.8.8.8")), "8.8.8.8"),
        (
            "http://[2606:4700:0::1111]:81/",
            Target("http", "2606:4700::1111", 81, "/", ip_address("2606:4700::1111")),
            "[2606:4700::1111]:81",
        ),
    ],
)
def test_what_is_read(url: str, target: Target, authority: str | None) -> None:
    assert parse(url) == target
    assert target.authority == (authority or target.host)


@pytest.mark.parametrize("host", ["-a.org", "a-.org", "a..org", f"{'a' * 64}.org", "a.b" * 100, "a.0x1", "a.1", "1", "a.b-"])
def test_what_is_no_name(host: str) -> None:
    with pytest.raises(MalformedRequest, match="host"):
        parse(f"http://{host}/")


parts = st.sampled_from(
    ["http", "https", "ftp", "://", ":", "/", "//", "\\", "@", "#", "?", "[", "]", "::1", "127.0.0.1", "0x7f", "example.org", ".",
     "%2e", "%00", "\t", "\r\n", " ", "\u2460", "\uff0e", "80", "443", "a", "-", "_", "{", "`", "\x7f", "\ud800"]
)  # fmt: skip
texts = st.one_of(st.text(max_size=40), st.lists(parts, max_size=10).map("".join))
urls = st.one_of(texts, texts.map("http://".__add__), st.tuples(texts, texts).map(lambda t: f"https://{t[0]}.org{t[1]}"))


@settings(deadline=None, max_examples=400)
@given(urls)
def test_any_text_is_read_as_others_read_it_or_refused(url: str) -> None:
    try:
        target = parse(url)
    except (MalformedRequest, SourceForbidden):
        return
    other = urlsplit(url)
    assert (other.scheme, other.hostname, other.username) == (target.scheme, target.host, None) or target.address is not None
    assert (other.port or {"http": 80, "https": 443}[target.scheme]) == target.port
    sent = f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\n"
    assert sent.isascii()
    assert (sent.count("\r"), sent.count("\n"), sent.count(" ")) == (2, 2, 3)
    if target.address is None:
        assert httpx.URL(url).host == target.host


BASE = Target("https", "example.org", 8443, "/a/b?c")


@pytest.mark.parametrize(
    ("location", "where"),
    [
        ("/x", "https://example.org:8443/x"),
        ("x", "https://example.org:8443/a/x"),
        ("?x", "https://example.org:8443/a/b?x"),
        ("../../../x", "https://example.org:8443/x"),
        ("//other.org/x", "https://other.org/x"),
        ("http://other.org:81/x#y", "http://other.org:81/x"),
    ],
)
def test_where_a_redirect_leads(location: str, where: str) -> None:
    assert join(BASE, location) == parse(where)


@settings(deadline=None, max_examples=200)
@given(urls)
def test_any_location_is_read_or_refused(location: str) -> None:
    try:
        found: object = join(BASE, location)
    except AppError as error:
        found = error
    assert isinstance(found, (Target, MalformedRequest, SourceForbidden))
