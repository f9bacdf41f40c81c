"""How long, and how often, an agent is asked."""

from dataclasses import dataclass
from datetime import timedelta

from temporalio.common import RetryPolicy

# For a client that waits. One that comes back for its result is better served by the run's whole time.
INTERACTIVE_ATTEMPTS = 5
INITIAL_INTERVAL = timedelta(seconds=1)
_MAX_INTERACTIVE_INTERVAL = timedelta(seconds=10)

# An agent that is away for a day is not asked every ten seconds of it.
_MAX_BACKGROUND_INTERVAL = timedelta(minutes=1)


@dataclass(frozen=True)
class RetryProfile:
    """How often an agent may be asked (None: as often as the run's time allows), and whether one that may not be
    asked now is waited for. Waiting is no attempt, so there it is the activity that counts them.
    """

    max_attempts: int | None
    waits_for_capacity: bool
    maximum_interval: timedelta

    def retry_policy(self, prior_attempts: int) -> RetryPolicy:
        """What Temporal is told."""
        return RetryPolicy(initial_interval=INITIAL_INTERVAL, maximum_interval=self.maximum_interval)


# For a client that waits, and for one that comes back or is called back.
INTERACTIVE = RetryProfile(INTERACTIVE_ATTEMPTS, waits_for_capacity=False, maximum_interval=_MAX_INTERACTIVE_INTERVAL)
BACKGROUND = RetryProfile(None, waits_for_capacity=True, maximum_interval=_MAX_BACKGROUND_INTERVAL)
