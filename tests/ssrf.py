"""Ways to talk a service into calling its own network, as data: what is sent, what it is, and what must come back.

`PORT` stands for a port with its colon, or for nothing. Names end in `example.org` where a resolver of the test answers for them.
"""

# ruff: noqa: RUF001 - characters that look like others are what some of this is about

from __future__ import annotations

from dataclasses import dataclass

FORBIDDEN, MALFORMED = "source-forbidden", "malformed-request"


@dataclass(frozen=True)
class Disguise:
    """One URL that must be refused before anything is sent, and without asking the DNS."""

    url: str
    what: str
    slug: str = FORBIDDEN

    def at(self, port: str) -> str:
        return self.url.replace("PORT", port)


@dataclass(frozen=True)
class Name:
    """A host name whose addresses must be refused."""

    host: str
    addresses: tuple[str, ...]
    what: str


def _of(what: str, *urls: str, slug: str = FORBIDDEN) -> tuple[Disguise, ...]:
    return tuple(Disguise(url, what, slug) for url in urls)


def _at(what: str, *hosts: str, slug: str = FORBIDDEN) -> tuple[Disguise, ...]:
    return _of(what, *(f"http://{host}PORT/" for host in hosts), slug=slug)


ADDRESSES = (
    *_at("loopback", "127.0.0.1", "127.8.9.10", "127.255.255.255", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]"),
    *_at("unspecified, which leads to loopback", "0.0.0.0", "0.1.2.3", "[::]", "[0::0]"),
    *_at("private", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *_at("link-local", "169.254.1.1", "[fe80::1]", "[febf::1]"),
    *_at("CGNAT", "100.64.0.1", "100.127.255.255"),
    *_at("protocol assignments", "192.0.0.8", "192.0.0.170", "[2001:1::1]"),
    *_at("documentation", "192.0.2.1", "198.51.100.1", "203.0.113.1", "[2001:db8::1]", "[3fff::1]"),
    *_at("benchmarking", "198.18.0.1", "198.19.255.255", "[2001:2::1]"),
    *_at("6to4 relay", "192.88.99.1"),
    *_at("multicast", "224.0.0.1", "239.255.255.250", "[ff02::1]", "[ff0e::1]"),
    *_at("reserved", "240.0.0.1", "[4000::1]", "[1fff::1]"),
    *_at("broadcast", "255.255.255.255"),
    *_at("metadata of most clouds", "169.254.169.254"),
    *_at("metadata of Amazon", "169.254.170.2", "[fd00:ec2::254]"),
    *_at("metadata of Google", "[fd20:ce::254]", "metadata.google.internal"),
    *_at("metadata of Azure, in a public range", "168.63.129.16"),
    *_at("metadata of Alibaba", "100.100.100.200"),
    *_at("metadata of Oracle", "192.0.0.192"),
    *_at("unique local", "[fc00::1]", "[fd12:3456:789a::1]"),
    *_at("site-local", "[fec0::1]"),
    *_at("discard-only", "[100::1]"),
    *_at("ORCHID", "[2001:10::1]", "[2001:20::1]"),
    *_at("segment routing", "[5f00::1]"),
)
EMBEDDED = (
    *_at("IPv4-mapped", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::FFFF:169.254.169.254]"),
    *_at("IPv4-mapped, of a public address", "[::ffff:8.8.8.8]"),
    *_at("IPv4-compatible", "[::127.0.0.1]", "[::7f00:1]", "[::169.254.169.254]"),
    *_at("IPv4-translated", "[::ffff:0:127.0.0.1]", "[::ffff:0:7f00:1]"),
    *_at("NAT64", "[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::7f00:1]"),
    *_at("6to4", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2002:0808:0808::1]"),
    *_at("Teredo", "[2001:0:7f00:1::1]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]"),
    *_at("ISATAP", "[2606:4700::5efe:7f00:1]", "[2606:4700::200:5efe:10.0.0.1]"),
)
SPELLINGS = (
    *_at("decimal", "2130706433", "2852039166", slug=MALFORMED),
    *_at("hexadecimal", "0x7f000001", "0x7f.0x0.0x0.0x1", "0x7f.1", "0xA9FEA9FE", "0X7F.0.0.1", "127.0.0.0x1", slug=MALFORMED),
    *_at("octal", "0177.0.0.1", "017700000001", "0251.0376.0251.0376", "127.0.0.01", "127.000.000.001", slug=MALFORMED),
    *_at("short", "127.1", "127.0.1", "0", "10.1", slug=MALFORMED),
    *_at("overflowing", "6425673729", "383.0.0.1", "127.0.0.257", "0x17f000001", slug=MALFORMED),
    *_at("a dot at the end", "127.0.0.1.", "localhost.", "2130706433.", "0x7f.1.", "example.org.", slug=MALFORMED),
    *_at("dots too many", "127..0.0.1", ".127.0.0.1", "127.0.0.1..", "127.0.0.0.1", slug=MALFORMED),
    *_at("percent-encoded", "%31%32%37.0.0.1", "127%2e0%2e0%2e1", "%6c%6f%63%61%6c%68%6f%73%74", slug=MALFORMED),
    *_at("percent-encoded end", "127.0.0.1%00.example.org", "127.0.0.1%2f.example.org", "127.0.0.1%23", slug=MALFORMED),
    *_at("enclosed alphanumerics", "①②⑦.⓪.⓪.①", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "⑯⑨。②⑤④。⑯⑨｡②⑤④", slug=MALFORMED),
    *_at("full width", "１２７.０.０.１", "ｌｏｃａｌｈｏｓｔ", slug=MALFORMED),
    *_at("other dots", "127。0。0。1", "127．0．0．1", slug=MALFORMED),
    *_at("invisible characters", "local\u00adhost", "127.0.0.1\u200b", "\u202e127.0.0.1", "127.0.0.1\ufeff", slug=MALFORMED),
    *_at("other scripts", "lоcalhost", "𝟏𝟐𝟕.𝟎.𝟎.𝟏", "bücher.example.org", slug=MALFORMED),
    *_at("zones", "[fe80::1%25lo]", "[fe80::1%lo]", "[::1%25eth0]", slug=MALFORMED),
    *_at("odd brackets", "[127.0.0.1]", "[::1", "::1]", "[::1]x", "[[::1]]", "[]", "[v1.x]", "[::1].example.org", slug=MALFORMED),
    *_at("odd IPv6", "::1", "[::ffff:127.1]", "[::ffff:0177.0.0.1]", "[:::1]", "[1::2::3]", "[00001::]", slug=MALFORMED),
)
NAMES = (
    *_at("loopback by name", "localhost", "LOCALHOST", "x.localhost", "localhost.localdomain"),
    *_at("names of local networks", "intranet", "printer.local", "db.internal", "router.home.arpa", "kubernetes"),
    *_at("Tor", "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion"),
)
AUTHORITIES = (
    *_at(
        "a user before the host",
        "example.org@127.0.0.1",
        "a:b@127.0.0.1",
        "example.org:80@127.0.0.1",
        "@127.0.0.1",
        slug=MALFORMED,
    ),
    *_of("a user that looks like a host", "http://127.0.0.1PORT@example.org/", "http://a@b@127.0.0.1PORT/", slug=MALFORMED),
    *_of("a backslash", "http://example.org\\@127.0.0.1PORT/", "http://127.0.0.1PORT\\@example.org/", slug=MALFORMED),
    *_of("backslashes for slashes", "http:\\\\127.0.0.1PORT/", "http:/\\127.0.0.1PORT/", slug=MALFORMED),
    *_of("slashes too few", "http:127.0.0.1PORT/", "http:/127.0.0.1PORT/", slug=MALFORMED),
    *_of("slashes too many", "http:///127.0.0.1PORT/", "http:////127.0.0.1PORT/", slug=MALFORMED),
    *_of("the host before a fragment", "http://127.0.0.1PORT#@example.org/", "http://127.0.0.1PORT#.example.org/"),
    *_of("the host before a query", "http://127.0.0.1PORT?@example.org/", "http://127.0.0.1PORT?.example.org/"),
    *_of("ports that are none", "http://example.org:/", "http://example.org:80:80/", "http://example.org:8٠/", slug=MALFORMED),
    *_of(
        "ports that are none", "http://example.org:+80/", "http://example.org:-1/", "http://example.org:000080/", slug=MALFORMED
    ),
    *_of("ports of other services", "http://example.org:22/", "http://example.org:6379/", "http://example.org:65616/"),
    *_of("no host", "http://", "http:///", "https://", "http://:80/", "http://?x", slug=MALFORMED),
)
CHARACTERS = (
    *_of("white space", " http://127.0.0.1PORT/", "http://127.0.0.1PORT/ ", "http://127.0.0.1 PORT/", slug=MALFORMED),
    *_of("tabs and lines", "http://127.0.0.1\tPORT/", "ht\ntp://127.0.0.1PORT/", "\thttp://127.0.0.1PORT/", slug=MALFORMED),
    *_of(
        "a header smuggled in", "http://127.0.0.1PORT/ HTTP/1.1\r\nHost: x\r\n\r\n", "http://example.org/\r\nX: y", slug=MALFORMED
    ),
    *_of(
        "control characters",
        "http://127.0.0.1PORT/\x00",
        "http://127.0.0.1\x00.example.org/",
        "\x01http://[::1]/",
        slug=MALFORMED,
    ),
    *_of("a control character in the fragment", "http://example.org/#\x0b", "http://example.org/#\x7f", slug=MALFORMED),
    *_of("nothing", "", slug=MALFORMED),
    *_of("endless", "http://example.org/" + "a" * 9000, slug=MALFORMED),
)
SCHEMES = (
    *_of("a file", "file:///etc/passwd", "FILE:///etc/passwd", "file://localhost/etc/passwd", "/etc/passwd"),
    *_of(
        "another protocol", "ftp://127.0.0.1PORT/x", "gopher://127.0.0.1PORT/_x", "dict://127.0.0.1PORT/x", "ws://127.0.0.1PORT/"
    ),
    *_of("another protocol", "ldap://127.0.0.1PORT/", "unix:///var/run/docker.sock", "jar:http://127.0.0.1PORT/!/x"),
    *_of("not fetched", "data:image/png;base64,iVBORw0KGgo=", "blob:http://127.0.0.1PORT/x", "javascript:0"),
    *_of("no scheme", "//127.0.0.1PORT/", "127.0.0.1PORT/", "://127.0.0.1PORT/", "url:http://127.0.0.1PORT/"),
    *_of("a scheme in capitals", "hTTp://127.0.0.1PORT/"),
)
DISGUISES = (*ADDRESSES, *EMBEDDED, *SPELLINGS, *NAMES, *AUTHORITIES, *CHARACTERS, *SCHEMES)

RESOLVED = (
    Name("loopback.example.org", ("127.0.0.1",), "a name for loopback"),
    Name("loopback6.example.org", ("::1",), "a name for loopback"),
    Name("zero.example.org", ("0.0.0.0",), "a name for the unspecified address"),
    Name("private.example.org", ("10.0.0.1",), "a name for a private address"),
    Name("metadata.example.org", ("169.254.169.254",), "a name for metadata"),
    Name("azure.example.org", ("168.63.129.16",), "a name for metadata of Azure"),
    Name("mapped.example.org", ("::ffff:127.0.0.1",), "a name for an IPv4-mapped address"),
    Name("nat64.example.org", ("64:ff9b::7f00:1",), "a name for a NAT64 address"),
    Name("sixtofour.example.org", ("2002:7f00:1::",), "a name for a 6to4 address"),
    Name("zone.example.org", ("fe80::1%lo",), "a name for an address with a zone"),
    Name("public-zone.example.org", ("2606:4700::1%lo",), "a name for a public address with a zone"),
    Name("mixed.example.org", ("93.184.215.14", "10.0.0.1"), "a public address and a private one"),
    Name("mixed6.example.org", ("2606:4700::1111", "93.184.215.14", "fd00::1"), "public addresses and a private one"),
    Name("last.example.org", (*(f"93.184.215.{n}" for n in range(1, 40)), "127.0.0.1"), "39 public addresses and loopback"),
    Name("nowhere.example.org", (), "a name without an address"),
    Name("odd.example.org", ("not an address",), "a resolver that answers nonsense"),
)

LOCATIONS = (  # where a public server sends on to
    ("http://127.0.0.1PORT/", "loopback"),
    ("http://127.0.0.2PORT/", "loopback elsewhere"),
    ("http://[::1]PORT/", "loopback"),
    ("//127.0.0.1:80/", "loopback, protocol-relative"),
    ("//2130706433/", "loopback in decimal, protocol-relative"),
    ("http://169.254.169.254/latest/meta-data/", "metadata"),
    ("http://metadata.google.internal/", "metadata by name"),
    ("http://10.0.0.1/", "private"),
    ("http://private.example.orgPORT/", "a name for a private address"),
    ("http://[::ffff:127.0.0.1]/", "IPv4-mapped"),
    ("http://0x7f.1/", "hexadecimal"),
    ("http://localhostPORT/", "loopback by name"),
    ("http://images.example.org@127.0.0.1PORT/", "a user before the host"),
    ("http://images.example.org:22/", "a port of another service"),
    ("\\\\127.0.0.1PORT\\x", "backslashes"),
    ("http://127.0.0.1\tPORT/", "a tab"),
    ("http://[::1", "an open bracket"),
    ("", "nothing"),
    ("file:///etc/passwd", "a file"),
    ("gopher://127.0.0.1PORT/_x", "another protocol"),
    ("ftp://127.0.0.1PORT/x", "another protocol"),
    ("data:image/png;base64,iVBORw0KGgo=", "data"),
    ("javascript:0", "a script"),
)
