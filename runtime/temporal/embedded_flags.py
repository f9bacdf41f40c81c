"""Flags of the embedded Temporal server. Every value was measured: see docs/decisions/embedded-server.md."""

from collections.abc import Sequence
from pathlib import Path

# The development server's defaults suit small experiments: the poll limits add up to 50 ms to every dispatch, and
# every task queue has four partitions.
_DYNAMIC_CONFIG = {
    "history.transferProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxPollRPS": "2000",
    "history.outboundProcessorMaxPollRPS": "2000",
    "history.visibilityProcessorMaxPollRPS": "2000",
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    # Every client that waits for a run's end, and every stream reader in another process, holds a long poll.
    "frontend.namespaceCount": "20000",
    # The server's caches grow with the number of runs: from 160 to 936 MB after 7,400 runs, to 546 MB with these
    # values.
    "history.hostLevelCacheMaxSize": "1000",
    "history.eventsHostLevelCacheMaxSizeInBytes": "16777216",
    # SQLite has one connection. With the default 512 workers per task type, so many wait for it that all of them
    # exceed their deadlines and retry for as long as the load lasts.
    "history.transferProcessorSchedulerWorkerCount": "32",
    "history.timerProcessorSchedulerWorkerCount": "32",
    "history.visibilityProcessorSchedulerWorkerCount": "16",
    # The server's HTTP API answers any web page that reaches its port: no host name is allowed there. gRPC is not
    # affected.
    "frontend.httpAllowedHosts": '["nothing.invalid"]',
    # Stock clients of Workflow Streams follow a run by Updates.
    "history.maxInFlightUpdates": "1000",
    "history.maxTotalUpdates": "0",
    # One tenant's backlog must not delay other tenants.
    "matching.enableFairness": "true",
    # Pushes a cancellation to the worker; otherwise the next heartbeat returns it.
    "frontend.WorkerCommandsEnabled": "true",
    "system.enableCancelActivityWorkerCommand": "true",
}

_SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL")

# A quarter less processor time for more memory: the server allocates much and keeps little.
ENVIRONMENT = {"GOGC": "400"}


def server_arguments(
    port: int,
    ui_port: int | None,
    database: Path,
    more: Sequence[str] = (),
    *,
    codec_endpoint: str | None = None,
) -> list[str]:
    """Returns the arguments after `temporal`: a server on loopback only, without a UI if `ui_port` is None.

    `more`: `key=value` pairs of dynamic configuration that override ours. `codec_endpoint`: where the UI's pages
    decrypt payloads.
    """
    arguments = ["server", "start-dev", "--ip", "127.0.0.1", "--port", str(port)]
    arguments += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
    if ui_port is not None and codec_endpoint is not None:
        arguments += ["--ui-codec-endpoint", codec_endpoint]
    arguments += ["--db-filename", str(database), "--log-level", "warn"]
    for pragma in _SQLITE_PRAGMAS:
        arguments += ["--sqlite-pragma", pragma]
    for key, value in {**_DYNAMIC_CONFIG, **dict(pair.split("=", 1) for pair in more)}.items():
        arguments += ["--dynamic-config-value", f"{key}={value}"]
    return arguments
