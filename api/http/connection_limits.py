"""How many connections a process takes, and how long each may stall."""

import resource
from dataclasses import dataclass

# Descriptors reserved for Temporal, agents, brokers and files.
_RESERVED_DESCRIPTORS = 100

# Connections beyond the cap, for /health/ only.
HEALTH_CONNECTIONS = 20


@dataclass(frozen=True)
class ConnectionLimits:
    """`head_seconds`: from a request's first byte to the end of its head. `body_idle_seconds`: without progress of
    the body. `write_stall_seconds`: while a client reads nothing of its response. `max_connections`: open at once.
    """

    head_seconds: float
    body_idle_seconds: float
    max_connections: int
    write_stall_seconds: float = 60.0


def connection_cap(wanted: int) -> int:
    """Raises the process's soft limit of descriptors as needed and allowed. Returns how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _RESERVED_DESCRIPTORS + HEALTH_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, raised), hard))
        soft = max(soft, raised)
    if soft == resource.RLIM_INFINITY:
        return wanted
    reserved = min(_RESERVED_DESCRIPTORS, soft // 2) + min(HEALTH_CONNECTIONS, soft // 8)
    return max(1, min(wanted, soft - reserved))
