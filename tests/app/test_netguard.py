"""The tables of addresses: each range at its edges, and never more lenient than the standard library's properties."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.netguard import METADATA, NAMES, RANGES_V4, RANGES_V6, IPAddress, refusal, refusal_of_name

RANGES: tuple[tuple[IPv4Network | IPv6Network, str], ...] = (*RANGES_V4, *RANGES_V6)
PUBLIC = (
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.0.3.0", "192.88.98.255", "192.88.100.0",
    "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255",
    "203.0.114.0", "223.255.255.255", "168.63.129.15", "168.63.129.17",
    "2001:200::", "2001:db7:ffff::", "2001:db9::", "2001:4860:4860::8888", "2003::", "2400::1", "2606:4700:4700::1111",
    "2a00:1450:4001::200e", "3ffe:ffff::", "2606:4700::5eff:7f00:1",
)  # fmt: skip

near = st.sampled_from([network for network, _ in RANGES]).flatmap(
    lambda network: st.builds(
        lambda edge, step: (int(edge) + step, network.version),
        st.sampled_from([network.network_address, network.broadcast_address]),
        st.integers(-3, 3),
    )
)


def _address(number_and_version: tuple[int, int]) -> IPAddress:
    number, version = number_and_version
    return IPv4Address(number % 2**32) if version == 4 else IPv6Address(number % 2**128)


inside = st.sampled_from([network for network, _ in RANGES]).flatmap(lambda network: st.ip_addresses(network=network))
global_unicast = st.integers(0x2 << 124, (0x4 << 124) - 1).map(IPv6Address)
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6), global_unicast, inside, near.map(_address))


@settings(deadline=None, max_examples=600)
@given(addresses)
@example(ip_address("192.0.0.9"))
@example(ip_address("2001:1::1"))
def test_never_more_lenient_than_the_standard_library(address: IPAddress) -> None:
    if refusal(address) is not None:
        return
    assert address.is_global
    for name in ("private", "multicast", "unspecified", "reserved", "loopback", "link_local"):
        assert not getattr(address, f"is_{name}"), name
    if isinstance(address, IPv6Address):
        assert not address.is_site_local
        assert (address.ipv4_mapped, address.sixtofour, address.teredo, address.scope_id) == (None, None, None, None)


@pytest.mark.parametrize(("network", "what"), RANGES, ids=str)
def test_a_range_is_refused_from_end_to_end_with_its_document(network: IPv4Network | IPv6Network, what: str) -> None:
    first, last = network[0], network[-1]
    assert refusal(first) is not None
    assert refusal(last) is not None
    assert re.search(r"\(RFC \d+\)$", what)
    assert what in {refusal(first), refusal(last)}  # none stands behind one that covers it whole


@pytest.mark.parametrize("text", PUBLIC)
def test_what_lies_beside_the_ranges_is_public(text: str) -> None:
    assert refusal(ip_address(text)) is None


@pytest.mark.parametrize("address", METADATA, ids=str)
def test_metadata_is_refused_by_name(address: IPAddress) -> None:
    assert str(refusal(address)).startswith("metadata of ")


@given(st.sampled_from([0x00005EFE, 0x02005EFE]), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_no_address_ends_in_an_embedded_one(middle: int, prefix: int, embedded: int) -> None:
    assert refusal(IPv6Address(prefix << 64 | middle << 32 | embedded)) is not None


def test_a_zone_makes_any_address_local() -> None:
    assert refusal(ip_address("2606:4700:4700::1111")) is None
    assert "zone" in str(refusal(ip_address("2606:4700:4700::1111%eth0")))


@pytest.mark.parametrize("name", NAMES)
def test_names_of_local_networks(name: str) -> None:
    assert refusal_of_name(name) is not None
    assert refusal_of_name(f"a.b.{name}") is not None
    assert refusal_of_name(f"{name}.example.org") is None
    assert refusal_of_name(f"not{name}.example.org") is None
    assert refusal_of_name("example.org") is None


def test_a_name_without_a_dot_is_local() -> None:
    assert refusal_of_name("intranet") is not None
