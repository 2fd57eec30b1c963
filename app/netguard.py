"""Is this address, or this name, part of the public internet? Pure functions over tables of our own; nothing is looked up here.

`ipaddress.is_global` differs between Python versions and calls some of these public, so it decides nothing here; a test holds
that the tables are at least as strict. Not known to anybody from outside, and so not refused: addresses that a network of
yours translates with a NAT64 prefix of its own (RFC 6052, section 2.2), and machines of yours that have public addresses.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPAddress = IPv4Address | IPv6Address

# What clouds tell their machines (keys included) to whoever asks from the inside. Azure's is in a public range.
METADATA: dict[IPAddress, str] = {
    IPv4Address("169.254.169.254"): "metadata of most clouds",
    IPv4Address("169.254.170.2"): "metadata of Amazon's containers",
    IPv4Address("100.100.100.200"): "metadata of Alibaba Cloud",
    IPv4Address("168.63.129.16"): "metadata of Azure",
    IPv4Address("192.0.0.192"): "metadata of Oracle Cloud",
    IPv6Address("fd00:ec2::254"): "metadata of Amazon",
    IPv6Address("fd20:ce::254"): "metadata of Google Cloud",
}

# IANA's registries of special-purpose addresses, and what they leave to other documents. The first that fits names it.
RANGES_V4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/32", "unspecified (RFC 1122)"),
        ("0.0.0.0/8", "this network (RFC 791)"),
        ("10.0.0.0/8", "private (RFC 1918)"),
        ("100.64.0.0/10", "shared, CGNAT (RFC 6598)"),
        ("127.0.0.0/8", "loopback (RFC 1122)"),
        ("169.254.0.0/16", "link-local (RFC 3927)"),
        ("172.16.0.0/12", "private (RFC 1918)"),
        ("192.0.0.0/24", "protocol assignments (RFC 6890)"),
        ("192.0.2.0/24", "documentation (RFC 5737)"),
        ("192.88.99.0/24", "6to4 relay anycast (RFC 7526)"),
        ("192.168.0.0/16", "private (RFC 1918)"),
        ("198.18.0.0/15", "benchmarking (RFC 2544)"),
        ("198.51.100.0/24", "documentation (RFC 5737)"),
        ("203.0.113.0/24", "documentation (RFC 5737)"),
        ("224.0.0.0/4", "multicast (RFC 5771)"),
        ("255.255.255.255/32", "broadcast (RFC 919)"),
        ("240.0.0.0/4", "reserved (RFC 1112)"),
    )
)
RANGES_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("::/128", "unspecified (RFC 4291)"),
        ("::1/128", "loopback (RFC 4291)"),
        ("::ffff:0:0/96", "IPv4-mapped (RFC 4291)"),
        ("::ffff:0:0:0/96", "IPv4-translated (RFC 2765)"),
        ("::/96", "IPv4-compatible (RFC 4291)"),
        ("64:ff9b::/96", "NAT64 (RFC 6052)"),
        ("64:ff9b:1::/48", "local NAT64 (RFC 8215)"),
        ("100::/64", "discard-only (RFC 6666)"),
        ("2001::/32", "Teredo (RFC 4380)"),
        ("2001:2::/48", "benchmarking (RFC 5180)"),
        ("2001:10::/28", "ORCHID (RFC 4843)"),
        ("2001:20::/28", "ORCHIDv2 (RFC 7343)"),
        ("2001::/23", "protocol assignments (RFC 2928)"),
        ("2001:db8::/32", "documentation (RFC 3849)"),
        ("2002::/16", "6to4 (RFC 3056)"),
        ("3fff::/20", "documentation (RFC 9637)"),
        ("5f00::/16", "segment routing (RFC 9602)"),
        ("fc00::/7", "unique local (RFC 4193)"),
        ("fe80::/10", "link-local (RFC 4291)"),
        ("fec0::/10", "site-local (RFC 3879)"),
        ("ff00::/8", "multicast (RFC 4291)"),
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that IANA gives out (RFC 3587)
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # the middle of an address that ends in an IPv4 one (RFC 5214, section 6.1)

NAMES: dict[str, str] = {
    "localhost": "loopback (RFC 6761)",
    "localdomain": "loopback, as many systems call it",
    "local": "link-local names (RFC 6762)",
    "internal": "private names (reserved by ICANN)",
    "home.arpa": "home networks (RFC 8375)",
    "onion": "Tor (RFC 7686)",
    "alt": "names outside the DNS (RFC 9476)",
}


def refusal(address: IPAddress) -> str | None:
    """Why this is no public unicast address, with the document that says so; None for one that is."""
    if isinstance(address, IPv4Address):
        return METADATA.get(address) or next((what for network, what in RANGES_V4 if address in network), None)
    if address.scope_id is not None:
        return "an address with a zone (RFC 4007)"
    what = METADATA.get(address) or next((what for network, what in RANGES_V6 if address in network), None)
    if what is not None:
        return what
    if address not in _GLOBAL_UNICAST:
        return "not given out (RFC 3587)"
    return "ISATAP (RFC 5214)" if int(address) >> 32 & 0xFFFFFFFF in _ISATAP else None


def refusal_of_name(host: str) -> str | None:
    """Why no public machine can have this name, in lower case and without a dot at its end; None where one may."""
    if "." not in host:
        return NAMES.get(host, "a name of a local network")
    return next((what for name, what in NAMES.items() if host.endswith("." + name) or host == name), None)
