"""How the embedded Temporal server is run. Every line was measured: see docs/decisions/embedded-server.md."""

from collections.abc import Sequence
from pathlib import Path

# The development server's defaults serve a laptop's curiosity: up to 50 ms are added to every dispatch by the
# poll limits, and every task queue is split in four.
_DYNAMIC_CONFIG = {
    "history.transferProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxPollRPS": "2000",
    "history.outboundProcessorMaxPollRPS": "2000",
    "history.visibilityProcessorMaxPollRPS": "2000",
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    # Everybody who waits for a run's end, or for its stream from elsewhere, holds a question open.
    "frontend.namespaceCount": "20000",
    # The server's caches grow with the number of runs: 160 to 936 MB after 7,400 of them, and 546 with these.
    "history.hostLevelCacheMaxSize": "1000",
    "history.eventsHostLevelCacheMaxSizeInBytes": "16777216",
    # SQLite has one connection. With the server's 512 workers for each kind of task, so many wait for it at a time
    # that all exceed their deadlines and start again, for as long as the load lasts.
    "history.transferProcessorSchedulerWorkerCount": "32",
    "history.timerProcessorSchedulerWorkerCount": "32",
    "history.visibilityProcessorSchedulerWorkerCount": "16",
    # The server's HTTP API answers any web page that reaches its port: no host name is allowed there. gRPC is not
    # affected.
    "frontend.httpAllowedHosts": '["nothing.invalid"]',
    # Stock clients of Workflow Streams follow a run by Updates.
    "history.maxInFlightUpdates": "1000",
    "history.maxTotalUpdates": "0",
    # One tenant's backlog must not hold up another's.
    "matching.enableFairness": "true",
    # A cancellation is pushed to the worker instead of being found at its next heartbeat.
    "frontend.WorkerCommandsEnabled": "true",
    "system.enableCancelActivityWorkerCommand": "true",
}

_SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL")

# A quarter less processor time for some more memory: the server allocates much and keeps little.
ENVIRONMENT = {"GOGC": "400"}


def server_arguments(port: int, ui_port: int | None, database: Path, more: Sequence[str] = ()) -> list[str]:
    """The arguments after `temporal`: a server on loopback only, without a UI if `ui_port` is None.

    `more`: `key=value` of the server's dynamic configuration, in the place of ours.
    """
    arguments = ["server", "start-dev", "--ip", "127.0.0.1", "--port", str(port)]
    arguments += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
    arguments += ["--db-filename", str(database), "--log-level", "warn"]
    for pragma in _SQLITE_PRAGMAS:
        arguments += ["--sqlite-pragma", pragma]
    for key, value in {**_DYNAMIC_CONFIG, **dict(pair.split("=", 1) for pair in more)}.items():
        arguments += ["--dynamic-config-value", f"{key}={value}"]
    return arguments
