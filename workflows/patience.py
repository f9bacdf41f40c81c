"""How long, and how often, an agent is asked."""

from dataclasses import dataclass
from datetime import timedelta

from temporalio.common import RetryPolicy

# For a client that waits. One that comes back for its result is better served by the run's whole time.
PROMPT_ATTEMPTS = 5
FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(seconds=10)

# An agent that is away for a day is not asked every ten seconds of it.
_LONGEST_PAUSE_IN_TIME = timedelta(minutes=1)


@dataclass(frozen=True)
class Patience:
    """How often an agent may be asked (None: as often as the run's time allows), and whether one that may not be
    asked now is waited for. Waiting is no attempt, so there it is the activity that counts them.
    """

    attempts: int | None
    waits: bool
    longest_pause: timedelta

    def retries(self, prior_attempts: int) -> RetryPolicy:
        """What Temporal is told."""
        return RetryPolicy(initial_interval=FIRST_PAUSE, maximum_interval=self.longest_pause)


# For a client that waits, and for one that comes back or is called back.
PROMPT = Patience(PROMPT_ATTEMPTS, waits=False, longest_pause=_LONGEST_PAUSE)
PATIENT = Patience(None, waits=True, longest_pause=_LONGEST_PAUSE_IN_TIME)
