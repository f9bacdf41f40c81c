"""Binds the ports that the process listens on."""

import errno
import socket

from sevenfold.runtime.startup import StartupError


def bind(host: str, port: int, variable: str) -> socket.socket:
    """Returns a bound socket that does not listen yet. `variable` is the setting that chooses another port. Raises
    StartupError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: asyncio disables Nagle's algorithm (40 ms per response) only on a socket whose
    # protocol is TCP.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except (OSError, UnicodeError) as error:
        sock.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise StartupError(
                f"Port {port} on {host} is in use. Stop the program that holds it, or choose another port with "
                f"{variable}."
            ) from None
        reason = getattr(error, "strerror", None) or str(error)
        raise StartupError(f"Cannot listen on {host}:{port} ({variable}): {reason}.") from None
    return sock


def check_free(host: str, port: int, variable: str) -> None:
    """Raises StartupError if the port cannot be bound."""
    bind(host, port, variable).close()
