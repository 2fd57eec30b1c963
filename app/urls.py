"""The text of a URL -> what it names, or why not: one spelling of everything, so that there is nothing to disagree about.

Stricter than RFC 3986: of two readings of an odd address one is somebody's way in. Knows neither network nor settings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import urljoin

from app.errors import MalformedRequest, SourceForbidden
from app.netguard import IPAddress

MAX_CHARACTERS = 8192
PORTS = {"http": 80, "https": 443}

# Printable ASCII. A backslash is a slash to some readers and none to others; the rest ends a URL in most texts.
_TEXT = re.compile(r"[!#-;=?-\[\]-~]+")
_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_DOTTED = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
# The last label begins with a letter, which no number does, be it 0x7f or 017700000001 (RFC 3696, section 2).
_NAME = re.compile(rf"(?:{_LABEL}\.)*[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads. `host` is in lower case, without brackets; `path` is sent as it is, query included."""

    scheme: str
    host: str
    port: int
    path: str
    address: IPAddress | None = None  # where the host is one

    @property
    def authority(self) -> str:
        """The `Host` header (RFC 9110, section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def parse(url: str) -> Target:
    """Read an absolute http or https URL; its fragment is dropped.

    Raises:
        MalformedRequest: it is spelt in a way that is not taken.
        SourceForbidden: of another scheme.
    """
    if len(url) > MAX_CHARACTERS or _TEXT.fullmatch(url) is None:
        raise MalformedRequest(
            f"the url may have up to {MAX_CHARACTERS} printable ASCII characters, without white space, quotes, backslash or "
            "angle brackets; others are percent-encoded, and hosts written as in the DNS (xn--)"
        )
    scheme, _, rest = url.partition(":")
    scheme = scheme.lower()
    if scheme not in PORTS:
        raise SourceForbidden("images are fetched by http and https only: https://host/path")
    if not rest.startswith("//"):
        raise MalformedRequest("the url should look like https://host/path")
    authority, path = re.fullmatch(r"//([^/?#]*)([^#]*).*", rest).groups()  # type: ignore[union-attr]  # fits any text
    host, port, address = _authority(authority)
    return Target(scheme, host, PORTS[scheme] if port is None else port, path if path[:1] == "/" else "/" + path, address)


def join(base: Target, location: str) -> Target:
    """Where a `Location` header leads, seen from `base` (RFC 3986, section 5.2).

    Raises:
        MalformedRequest, SourceForbidden: as `parse`.
    """
    if not location or _TEXT.fullmatch(location) is None:  # before `urljoin`, which leaves out some characters without a word
        raise MalformedRequest("a redirect should hold a url of printable ASCII characters")
    try:
        return parse(urljoin(f"{base.scheme}://{base.authority}{base.path}", location))
    except ValueError:  # brackets that do not match, say
        raise MalformedRequest("a redirect should hold a url") from None


def _authority(text: str) -> tuple[str, int | None, IPAddress | None]:
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise _odd_host()
    port = None if found["port"] is None else int(found["port"])
    try:
        if found["v6"] is not None:
            v6 = IPv6Address(found["v6"])
            return str(v6), port, v6
        name = found["name"].lower()
        if _DOTTED.fullmatch(name):
            v4 = IPv4Address(name)
            return str(v4), port, v4
    except AddressValueError:
        raise _odd_host() from None
    if len(name) > 253 or _NAME.fullmatch(name) is None:
        raise _odd_host()
    return name, port, None


def _odd_host() -> MalformedRequest:
    return MalformedRequest(
        "the host of the url should be a name of letters, digits and dashes, an IPv4 address of four decimal numbers or an IPv6 "
        "address in brackets; with no user, zone or dot at its end, and with a port or without a colon"
    )
