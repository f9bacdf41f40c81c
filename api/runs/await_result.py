"""Waits for a run's result, for the patterns whose clients wait."""

import math

from sevenfold.adapters.temporal.run_outcomes import RunCancelledError, RunFailedError, await_result
from sevenfold.api.http.problems import ProblemError, ProblemType, run_failure
from sevenfold.api.runs.start import StartedRun
from sevenfold.contracts.runs import RunResult

_MAX_RETRY_AFTER = 30.0  # seconds


async def await_run(started: StartedRun, seconds: float, headers: dict[str, str]) -> RunResult | None:
    """Returns the run's result, or None if there is none after `seconds`.

    Raises the run's problem, with the headers, if it failed or was cancelled.
    """
    try:
        return await await_result(started.handle, seconds)
    except RunFailedError as failure:
        problem = run_failure(started.run_id, failure.error)
        problem.headers |= headers
        raise problem from failure
    except RunCancelledError as failure:
        detail = "The run was cancelled before it had an answer."
        raise ProblemError(ProblemType.CANCELLED, detail, headers=headers, run_id=started.run_id) from failure
    finally:
        if started.turn is not None:
            started.turn.release()


def suggest_retry_after(waited_seconds: float) -> str:
    """Returns `Retry-After` for a run that goes on: as long as the client has waited already, 1 to 30 s."""
    return str(math.ceil(min(_MAX_RETRY_AFTER, max(1.0, waited_seconds))))
