"""Why an activity is interrupted: a cancellation ends its run, anything else is gone through by another attempt."""

import asyncio

from temporalio import activity
from temporalio.exceptions import ApplicationError


def raise_unless_cancel_requested(details: activity.ActivityCancellationDetails | None) -> None:
    """Returns when the run is to be cancelled. Else raises what has the server go on by another attempt."""
    if details is None or details.worker_shutdown or details.not_found or details.timed_out:
        raise asyncio.CancelledError
    if details.paused and not details.cancel_requested:
        raise ApplicationError("An operator has paused this activity.", type="ActivityPaused")
    if details.reset and not details.cancel_requested:
        raise ApplicationError("An operator has reset this activity.", type="ActivityReset")
