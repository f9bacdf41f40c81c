"""Cancellation that arrives."""

import asyncio


def raise_if_cancelled() -> None:
    """To be called where Temporal's client may have turned a cancellation into an error of its own (an update's
    WorkflowUpdateRPCTimeoutOrCancelledError).
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from None
