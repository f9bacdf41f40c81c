"""Updates of workflows, with a time limit."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError

from sevenfold.adapters.temporal.cancellation import raise_if_cancelled

T = TypeVar("T")


class UpdateTimeoutError(Exception):
    """No worker has answered an update in time. It may still be made."""

    def __init__(self, limit: timedelta) -> None:
        super().__init__(f"no worker has answered the update within {limit.total_seconds():g} s")
        self.limit = limit


async def await_update(update: Awaitable[T], limit: timedelta) -> T:
    """Returns the result of an update. Raises WorkflowUpdateFailedError if the workflow refuses it, and
    UpdateTimeoutError.

    The SDK's `rpc_timeout` alone is no limit: while no worker accepts the update, the SDK repeats the call.
    """
    try:
        async with asyncio.timeout(limit.total_seconds()):
            return await update
    except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError):
        raise_if_cancelled()
        raise UpdateTimeoutError(limit) from None
