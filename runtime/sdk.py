"""The Temporal SDK's own runtime (its thread pool): one per process."""

from datetime import timedelta
from functools import cache

from temporalio.runtime import Runtime, TelemetryConfig


@cache
def sdk_runtime() -> Runtime:
    """The process's runtime, made at first use."""
    # A worker's heartbeat is what carries a pushed cancellation: 1 s is the least that the SDK takes.
    return Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=timedelta(seconds=1))
