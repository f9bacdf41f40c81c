"""Ports that we are about to listen on."""

import errno
import socket

from sevenfold.runtime.startup import StartupError


def bind(host: str, port: int, variable: str) -> socket.socket:
    """A bound socket, not yet listening. `variable` is what the user sets to choose another port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: asyncio turns Nagle's delay off (40 ms an answer) only for a socket that says TCP.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except (OSError, UnicodeError) as error:
        sock.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise StartupError(
                f"Port {port} on {host} is taken. Stop the program that holds it, or choose another port with "
                f"{variable}."
            ) from None
        reason = getattr(error, "strerror", None) or str(error)
        raise StartupError(f"Cannot listen on {host}:{port} ({variable}): {reason}.") from None
    return sock


def check_free(host: str, port: int, variable: str) -> None:
    """Raises StartupError where `bind` would."""
    bind(host, port, variable).close()
