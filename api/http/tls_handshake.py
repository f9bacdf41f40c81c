"""TLS in front of uvicorn's HTTP protocol, with a limit on handshakes.

asyncio's own TLS server calls the HTTP protocol only after the handshake. Until then a connection counts nowhere, for
60 s: clients that open connections and send nothing would use up all descriptors.
"""

import asyncio
import ssl
from collections.abc import Callable, Sized
from typing import Any

from sevenfold.api.http.connection_limits import ConnectionLimits

# A client that does not answer the end of TLS is cut off after this many seconds.
_SHUTDOWN_SECONDS = 5.0


class TlsServer:
    """Makes the protocols of accepted connections: a TLS handshake first, then the HTTP protocol.

    A handshake has `head_seconds`. Connections and handshakes together are limited to `max_connections`: beyond that,
    each new connection ends the oldest handshake, since an honest one takes milliseconds.
    """

    def __init__(self, context: ssl.SSLContext, protocol: type[asyncio.Protocol], limits: ConnectionLimits) -> None:
        self._context = context
        self._protocol = protocol
        self._limits = limits
        # Handshakes under way, the oldest first.
        self._pending: dict[asyncio.Transport, asyncio.Task[None]] = {}

    def accept(self, **arguments: Any) -> asyncio.Protocol:
        """Returns the protocol of a connection; uvicorn's arguments are passed on to the HTTP protocol."""
        connections: Sized = arguments["server_state"].connections
        return _Accepted(lambda transport: self._start(transport, connections, arguments))

    def abort_handshakes(self) -> None:
        """Ends all handshakes under way, so that they do not delay the server's stop."""
        for transport in self._pending:
            transport.abort()

    def _start(self, transport: asyncio.Transport, connections: Sized, arguments: dict[str, Any]) -> None:
        if self._pending and len(self._pending) + len(connections) >= self._limits.max_connections:
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            oldest.abort()
        self._pending[transport] = asyncio.get_running_loop().create_task(self._serve(transport, arguments))

    async def _serve(self, transport: asyncio.Transport, arguments: dict[str, Any]) -> None:
        early = _EarlyData()
        try:
            encrypted = await asyncio.get_running_loop().start_tls(
                transport,
                early,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._limits.head_seconds,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        except OSError:  # not TLS, no common version, time-out, or the client went away
            return
        finally:
            self._pending.pop(transport, None)
        if encrypted is None or encrypted.is_closing():
            transport.abort()
            return
        http = self._protocol(**arguments)
        encrypted.set_protocol(http)
        http.connection_made(encrypted)
        if early.data:
            http.data_received(bytes(early.data))


class _Accepted(asyncio.Protocol):
    """A connection before its handshake."""

    def __init__(self, start: Callable[[asyncio.Transport], None]) -> None:
        self._start = start

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._start(transport)


class _EarlyData(asyncio.Protocol):
    """Keeps what arrives with the end of the handshake, before the HTTP protocol is there."""

    def __init__(self) -> None:
        self.data = bytearray()

    def data_received(self, data: bytes) -> None:
        self.data += data
