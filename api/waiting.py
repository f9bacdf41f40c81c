"""Waiting for a run's answer, for the doors at which clients do."""

import math

from adapters.run_outcomes import RunCancelledError, RunFailedError, result_within
from api.problems import Kind, ProblemError, failed_run
from api.starting import Started
from contracts.runs import RunResult

_LONGEST_RETRY_AFTER = 30.0  # seconds


async def waited_for(started: Started, seconds: float, headers: dict[str, str]) -> RunResult | None:
    """The run's result, or None if there is none after that many seconds.

    Raises the problem of a run that failed or was cancelled, with the headers.
    """
    try:
        return await result_within(started.handle, seconds)
    except RunFailedError as failure:
        problem = failed_run(started.run_id, failure.error)
        problem.headers |= headers
        raise problem from failure
    except RunCancelledError as failure:
        said = "The run was cancelled before it had an answer."
        raise ProblemError(Kind.CANCELLED, said, headers=headers, run_id=started.run_id) from failure


def retry_after(waited: float) -> str:
    """When to look again at what goes on after so many seconds: after as long again."""
    return str(math.ceil(min(_LONGEST_RETRY_AFTER, max(1.0, waited))))
