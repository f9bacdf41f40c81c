"""Distinguishes cancellations of an activity: a requested cancellation ends the run, any other one is retried."""

import asyncio

from temporalio import activity
from temporalio.exceptions import ApplicationError


def raise_unless_cancel_requested(details: activity.ActivityCancellationDetails | None) -> None:
    """Returns if the run is to be cancelled. Otherwise raises the exception that makes the server retry the
    activity.
    """
    if details is None or details.worker_shutdown or details.not_found or details.timed_out:
        raise asyncio.CancelledError
    if details.paused and not details.cancel_requested:
        raise ApplicationError("An operator paused this activity.", type="ActivityPaused")
    if details.reset and not details.cancel_requested:
        raise ApplicationError("An operator reset this activity.", type="ActivityReset")
