"""Connections to hosts that users named: resolved once, checked, and made to exactly the checked address."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import httpcore
import httpx

from sevenfold.adapters.outbound.addresses import UnsafeUrlError, is_allowed
from sevenfold.adapters.outbound.urls import literal_address

Addresses = Sequence[IPv4Address | IPv6Address]

# Resolves host name and port to all addresses, best first. Raises OSError if there is none.
Resolve = Callable[[str, int], Awaitable[Addresses]]

# Large sites have about eight addresses; more could make the gateway probe many hosts.
_MAX_TRIED = 8

# How long an idle connection is kept, in seconds. Shorter than the 5 s of uvicorn and Node, so that a request does
# not meet a server that is closing the connection.
KEPT_IDLE_SECONDS = 3.0


class UnresolvableError(httpx.ConnectError):
    """The host name has no address, or no name server answered in time."""


async def resolve_by_system(host: str, port: int) -> Addresses:
    """Resolves a host name by the system resolver. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(sockaddr[0]) for *_, sockaddr in found]


class GuardedConnections(httpcore.AnyIOBackend):
    """Connects to public addresses only. TLS still uses the original host name."""

    def __init__(self, resolve: Resolve, *, allow_loopback: bool) -> None:
        self._resolve = resolve
        self._allow_loopback = allow_loopback

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Returns a stream to the first address that answers; each address gets an equal share of the `timeout`
        (seconds).

        Raises UnsafeUrlError if any address is not allowed, UnresolvableError, httpcore.ConnectError and
        httpcore.ConnectTimeout.
        """
        *others, last = await self._allowed_addresses(host, port)
        share = None if timeout is None else timeout / (len(others) + 1)
        for address in others:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await super().connect_tcp(str(address), port, share, local_address, socket_options)
        return await super().connect_tcp(str(last), port, share, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises UnsafeUrlError."""
        raise UnsafeUrlError("Unix sockets are not called. Use the URL of a public host.")

    async def _allowed_addresses(self, host: str, port: int) -> Addresses:
        literal = literal_address(host)
        addresses = await self._addresses(host, port) if literal is None else [literal]
        # One disallowed address is enough: a mixed answer may aim at checking one address and using another.
        if not all(is_allowed(address, allow_loopback=self._allow_loopback) for address in addresses):
            raise UnsafeUrlError(
                "The URL's host has an address that is not on the public internet, which is not called. "
                "Use the URL of a public host."
            )
        return addresses[:_MAX_TRIED]

    async def _addresses(self, host: str, port: int) -> Addresses:
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise UnresolvableError("The host name could not be resolved.") from error
        if not addresses:
            raise UnresolvableError("The host name has no address.")
        return addresses
