"""Retry profiles of agent calls."""

from dataclasses import dataclass
from datetime import timedelta

from temporalio.common import RetryPolicy

# For a client that waits. A client that polls or is called back gets retries until the run's timeout.
INTERACTIVE_ATTEMPTS = 5
INITIAL_INTERVAL = timedelta(seconds=1)
_MAX_INTERACTIVE_INTERVAL = timedelta(seconds=10)

# An agent that is down for a day is not called every ten seconds.
_MAX_BACKGROUND_INTERVAL = timedelta(minutes=1)


@dataclass(frozen=True)
class RetryProfile:
    """`max_attempts` (None: until the run's timeout), and whether a call waits while the circuit is open or the
    limits are used up. Waiting counts as no attempt of the agent, so the activity counts the attempts, not Temporal.
    """

    max_attempts: int | None
    waits_for_capacity: bool
    maximum_interval: timedelta

    def retry_policy(self) -> RetryPolicy:
        """The retry policy of the activity: exponential backoff from 1 s to `maximum_interval`."""
        return RetryPolicy(initial_interval=INITIAL_INTERVAL, maximum_interval=self.maximum_interval)


# INTERACTIVE: the client waits. BACKGROUND: the client polls or is called back.
INTERACTIVE = RetryProfile(INTERACTIVE_ATTEMPTS, waits_for_capacity=False, maximum_interval=_MAX_INTERACTIVE_INTERVAL)
BACKGROUND = RetryProfile(None, waits_for_capacity=True, maximum_interval=_MAX_BACKGROUND_INTERVAL)
