"""The Temporal SDK's runtime (its thread pool): one per process."""

from datetime import timedelta
from functools import cache

from temporalio.runtime import Runtime, TelemetryConfig


@cache
def sdk_runtime() -> Runtime:
    """Returns the process's runtime, created on first use."""
    # A worker's heartbeat carries pushed cancellations: 1 s is the SDK's minimum.
    return Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=timedelta(seconds=1))
