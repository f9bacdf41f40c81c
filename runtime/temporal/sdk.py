"""The Temporal SDK's runtime (its thread pool): one per process."""

import socket
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

_ATTEMPTS = 5


@dataclass(frozen=True)
class SdkRuntime:
    """`metrics_address`: where the SDK shows its metrics, on a free port of loopback."""

    runtime: Runtime
    metrics_address: str


@cache
def shared_runtime() -> SdkRuntime:
    """Returns the process's runtime and the address of its metrics; created on first use."""
    for attempt in range(_ATTEMPTS):
        address = f"127.0.0.1:{_free_port()}"
        metrics = PrometheusConfig(
            bind_address=address, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
        )
        try:
            # A worker's heartbeat carries pushed cancellations: 1 s is the SDK's minimum.
            runtime = Runtime(
                telemetry=TelemetryConfig(metrics=metrics), worker_heartbeat_interval=timedelta(seconds=1)
            )
        except (RuntimeError, ValueError):  # Somebody else has taken the port meanwhile.
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return SdkRuntime(runtime, address)
    raise AssertionError("the last attempt returns or raises")


def sdk_runtime() -> Runtime:
    """Returns the process's runtime."""
    return shared_runtime().runtime


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
