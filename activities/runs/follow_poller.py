"""Finds out whether a stream that is buffered has a reader."""

import time
from contextlib import suppress
from datetime import timedelta

from temporalio import activity
from temporalio.service import RPCError

from sevenfold.activities.identity import current_workflow_id
from sevenfold.activities.runs.running_call import CallInFlight
from sevenfold.adapters.temporal.encoded import memo_names
from sevenfold.contracts.runs.streams import FOLLOWED_MEMO

# Bounds of the interval at which the follow memo is polled.
_MIN_POLL_SECONDS, _MAX_POLL_SECONDS = 2.0, 30.0
_POLL_TIMEOUT = timedelta(seconds=2)


class FollowPoller:
    """Polls whether a run whose stream is buffered has a reader. The follow signal may have reached another
    worker.
    """

    def __init__(self, call: CallInFlight) -> None:
        self._call = call
        self._poll_interval = _MIN_POLL_SECONDS
        self._next_poll_at = time.monotonic() + self._poll_interval

    async def poll(self) -> None:
        """Reads the follow memo if the interval is over."""
        if not self._call.publisher.is_buffering or time.monotonic() < self._next_poll_at:
            return
        self._poll_interval = min(2 * self._poll_interval, _MAX_POLL_SECONDS)
        self._next_poll_at = time.monotonic() + self._poll_interval
        with suppress(RPCError):
            handle = activity.client().get_workflow_handle(current_workflow_id())
            description = await handle.describe(rpc_timeout=_POLL_TIMEOUT)
            if FOLLOWED_MEMO in memo_names(description):
                self._call.publisher.start_publishing()
