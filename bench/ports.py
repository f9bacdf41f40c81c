"""Free ports on the loopback, for benchmarks, campaigns and tests."""

import itertools
import os
import random
import socket
from contextlib import suppress

# Below the ports that the kernel gives to outgoing connections: one of those could take a port between its choice and
# its use, or while its process restarts. Each process of a parallel test run has a range of its own.
_FIRST, _COUNT, _RANGES = 12_000, 2_000, 10
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _RANGES
_PORTS = itertools.cycle(random.sample(range(_FIRST + _COUNT * _WORKER, _FIRST + _COUNT * (_WORKER + 1)), _COUNT))


def free_port() -> int:
    """Return a port that nobody listens on."""
    for port in itertools.islice(_PORTS, _COUNT):
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("all ports are taken")


def free_ports(count: int) -> list[int]:
    """Return distinct ports that nobody listens on."""
    return [free_port() for _ in range(count)]
