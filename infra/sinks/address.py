"""Which addresses an alert may be sent to: the guard against requests that are forged on the server's side.

What is looked at is the address that will be connected to, after the name was looked up; however it was
written (decimal, octal, an IPv4 address inside an IPv6 one), it is the same address by then.
"""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_V4 = [
    ipaddress.IPv4Network(net)
    for net in (
        "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
    )
]  # fmt: skip
_V6 = [ipaddress.IPv6Network(net) for net in ("::1/128", "fc00::/7")]
"""Loopback, private networks, a carrier's shared space: allowed where the setting says so."""

_METADATA = [
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
]
"""Where clouds give a machine's credentials to whoever asks from it: never allowed."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291, 2.5.5.1
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")  # RFC 3879
_GLOBAL = ipaddress.IPv6Network("2000::/3")  # all that is handed out
_TEREDO = ipaddress.IPv6Network("2001::/23")  # IETF's own, Teredo among them
_DOCUMENTATION = [ipaddress.IPv6Network(net) for net in ("2001:db8::/32", "3fff::/20")]


def embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to an IPv6 one end up at: mapped, NAT64 and 6to4."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.sixtofour


def refusal(text: str, allow_private: bool = False) -> str | None:
    """Say why nothing is sent to an address, or None where it may be.

    Args:
        text: a numeric address, with or without a scope (``fe80::1%eth0``).
        allow_private: loopback and private networks may be connected to; link-local addresses, those of
            clouds' metadata, "any" and multicast never.

    Raises:
        ValueError: it is no address.
    """
    address = ipaddress.ip_address(text)
    inner = embedded(address)
    if inner is not None:
        # a translated address cannot reach what is private here unless a translator does that: never meant so
        return _plain(inner, allow_private and address.ipv4_mapped is not None)  # type: ignore[union-attr]
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None and not address.is_link_local:
        address = ipaddress.IPv6Address(int(address))
    return _plain(address, allow_private)


def _plain(address: Address, allow_private: bool) -> str | None:
    if address in _METADATA:
        return "an address of a cloud's metadata"
    private = any(address in net for net in (_V4 if address.version == 4 else _V6))
    if private:
        return None if allow_private else "a private or loopback address; allow_private = true allows it"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if isinstance(address, ipaddress.IPv6Address):
        odd = address in _NAT64_LOCAL or address in _COMPATIBLE or address in _SITE_LOCAL or address in _TEREDO
        if odd or address not in _GLOBAL or any(address in net for net in _DOCUMENTATION):
            return "not an address of the public internet"
    elif not address.is_global or address in ipaddress.IPv4Network("192.88.99.0/24"):
        return "not an address of the public internet"
    return None
