"""Restores cancellations that Temporal's client converted to other errors."""

import asyncio


def raise_if_cancelled() -> None:
    """Raises CancelledError if the current task is being cancelled. Call it after an exception of Temporal's client,
    which converts cancellations of updates (WorkflowUpdateRPCTimeoutOrCancelledError).
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from None
