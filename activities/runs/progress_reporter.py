"""Reports an agent's progress to the workflow that delivers it to a webhook."""

import asyncio
import time
from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError

from sevenfold.contracts.agents.interface import Progress

_MIN_SECONDS = 0.5
# The pauses grow with the call, as those between the deliveries do.
_MAX_PER_ELAPSED = 100
_SIGNAL_TIMEOUT = timedelta(seconds=2)


class ProgressReporter:
    """Sends the latest progress of one call, at most every 0.5 s. Any single progress may be lost.

    A task of this class sends while there is something to send; `on_done` ends it with the call.
    """

    def __init__(self, client: Client, workflow_id: str) -> None:
        self._handle = client.get_workflow_handle(workflow_id)
        self._started_at = time.monotonic()
        self._pending: Progress | None = None
        self._sending: asyncio.Task[None] | None = None

    def report(self, progress: Progress) -> None:
        """Sends it now, or when the pause since the last one is over and nothing newer has come."""
        self._pending = progress
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(), name="reports progress")

    def on_done(self, _: object) -> None:
        """Stops: the outcome follows."""
        self._pending = None
        if self._sending is not None:
            self._sending.cancel()

    async def _send(self) -> None:
        while self._pending is not None:
            progress, self._pending = self._pending, None
            try:
                await self._handle.signal("progress", progress, rpc_timeout=_SIGNAL_TIMEOUT)
            except RPCError:  # The run may not have started that workflow yet.
                self._pending = self._pending or progress
            elapsed = time.monotonic() - self._started_at
            await asyncio.sleep(max(_MIN_SECONDS, elapsed / _MAX_PER_ELAPSED))
