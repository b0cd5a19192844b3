"""Which addresses alerts are sent to."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.infra.sinks.address import refusal
from ratchet.infra.sinks.http import resolve

PRIVATE = ["10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"]
NEVER = ["0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "192.0.2.0/24", "198.18.0.0/15"]


def within(*nets: str) -> st.SearchStrategy[ipaddress.IPv4Address]:
    """Addresses of these networks."""
    return st.sampled_from(nets).flatmap(
        lambda net: st.ip_addresses(v=4, network=net)  # type: ignore[arg-type]
    )


private, never = within(*PRIVATE), within(*NEVER)
public = st.ip_addresses(v=4).filter(
    lambda a: a.is_global and not a.is_multicast and str(a) != "168.63.129.16" and a not in
    ipaddress.ip_network("192.88.99.0/24")
)  # fmt: skip


def dressed(address: ipaddress.IPv4Address) -> list[str]:
    """An IPv4 address inside IPv6 ones: mapped, compatible, NAT64 (both prefixes), 6to4."""
    n = int(address)
    bases = {"mapped": 0xFFFF << 32, "compatible": 0, "nat64": 0x64_FF9B << 96, "local": 0x64_FF9B_0001 << 80}
    found = [ipaddress.IPv6Address(base | n) for base in bases.values()]
    return [str(one) for one in [*found, ipaddress.IPv6Address((0x2002 << 112) | (n << 80) | 1)]]


@given(private)
def test_private_addresses_need_the_setting(address: ipaddress.IPv4Address) -> None:
    """Loopback and private networks are refused unless the setting allows them; but a cloud's metadata never is."""
    assert refusal(str(address))
    metadata = str(address) == "100.100.100.200"
    assert bool(refusal(str(address), allow_private=True)) is metadata


@given(never)
def test_some_addresses_are_never_allowed(address: ipaddress.IPv4Address) -> None:
    """Link-local, "any", multicast, reserved: refused whatever the setting says."""
    assert refusal(str(address), allow_private=True)


@given(st.one_of(private, never))
def test_an_ipv4_address_inside_an_ipv6_one_is_refused_as_itself(address: ipaddress.IPv4Address) -> None:
    """Mapped, compatible, NAT64 and 6to4 forms of what is refused are refused."""
    for text in dressed(address):
        assert refusal(text), text


@given(public)
def test_public_addresses_are_allowed(address: ipaddress.IPv4Address) -> None:
    """Public addresses pass, also mapped ones and those of NAT64, which IPv6-only networks need."""
    assert refusal(str(address)) is None
    mapped, _, nat64, *_ = dressed(address)
    assert refusal(mapped) is None
    assert refusal(nat64) is None


@settings(max_examples=25)
@given(st.one_of(private, never, public), st.sampled_from(["decimal", "hex", "octal", "short"]))
def test_however_it_is_written_the_address_is_what_counts(address: ipaddress.IPv4Address, form: str) -> None:
    """Decimal, hexadecimal, octal and shortened forms are looked up to the address that they mean."""
    n, parts = int(address), address.packed
    text = {
        "decimal": str(n),
        "hex": hex(n),
        "octal": ".".join(f"0{part:o}" for part in parts),
        "short": f"{parts[0]}.{n & 0xFFFFFF}",
    }[form]
    [found] = asyncio.run(resolve(text, 80))
    assert found == str(address)
    assert bool(refusal(found)) == bool(refusal(str(address)))


@pytest.mark.parametrize(
    "text",
    ["::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1",
     "2001::1", "64:ff9b:1::1", "::ffff:127.0.0.1", "2002:7f00:1::", "169.254.169.254", "168.63.129.16", "0.0.0.0"],
)  # fmt: skip
def test_known_traps(text: str) -> None:
    """Addresses that reach what is inside, or nowhere."""
    assert refusal(text)


def test_public_ipv6() -> None:
    """An address of the internet passes; a private one with the setting."""
    assert refusal("2606:4700:4700::1111") is None
    assert refusal("fd12::1", allow_private=True) is None
    assert refusal("::1", allow_private=True) is None
    assert refusal("fd00:ec2::254", allow_private=True)
    assert refusal("64:ff9b::7f00:1", allow_private=True)
