"""Which IP addresses the gateway may connect to for users: those of the public internet."""

from ipaddress import IPv4Address, IPv6Address, ip_network

# All allocated IPv6 unicast addresses. Outside are ::127.0.0.1, 64:ff9b::/96 (NAT64), fec0::1 and others that Python
# 3.11 calls global.
_UNICAST = ip_network("2000::/3")

# Networks that `is_global` of Python 3.11 accepts, or once accepted, but that are not public hosts.
_REFUSED = tuple(
    ip_network(network)
    for network in (
        "100.64.0.0/10",  # Carrier-grade NAT; Alibaba's metadata at 100.100.100.200
        "168.63.129.16/32",  # Azure's host
        "169.254.0.0/16",  # Link-local; the metadata of most clouds
        "192.0.0.0/24",  # Protocol assignments; Oracle's metadata at 192.0.0.192
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # Teredo and other protocol assignments
        "2001:db8::/32",  # Documentation
        "2002::/16",  # 6to4, which embeds any IPv4 address
        "3fff::/20",  # Documentation
    )
)


class UnsafeUrlError(Exception):
    """A URL that the gateway does not call. The message states the reason and what to do."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is one host on the public internet, in any notation."""
    address = _unmapped(address)
    if isinstance(address, IPv6Address) and (address not in _UNICAST or address.scope_id is not None):
        return False
    if any(address in network for network in _REFUSED):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def is_loopback(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is this machine: 127.0.0.0/8 or ::1, but not 0.0.0.0 or ::, which lead here too."""
    return _unmapped(address).is_loopback


def is_allowed(address: IPv4Address | IPv6Address, *, allow_loopback: bool) -> bool:
    """Whether the gateway may connect to the address; `allow_loopback` in development only."""
    return is_public(address) or (allow_loopback and is_loopback(address))


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    # ::ffff:127.0.0.1 is 127.0.0.1 on the wire.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
