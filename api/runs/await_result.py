"""Waits for a run's result, for the patterns whose clients wait."""

import asyncio
import math
from contextlib import suppress

from temporalio.service import RPCError

from sevenfold.adapters.temporal.encoded import memo_names
from sevenfold.adapters.temporal.run_outcomes import RunCancelledError, RunFailedError, await_result
from sevenfold.api.http.problems import ProblemError, ProblemType, run_failure
from sevenfold.api.runs.start import StartedRun
from sevenfold.contracts.agents.questions import QUESTIONS_MEMO
from sevenfold.contracts.runs.run import RunResult

_MAX_RETRY_AFTER = 30.0  # seconds

# When a waiting client's run is checked for questions. A check is a read from Temporal, and under load most runs take
# half a second: with a first check after 0.5 s each of them cost one more.
_FIRST_LOOK_SECONDS, _MAX_LOOK_SECONDS = 2.0, 4.0


async def await_run(started: StartedRun, seconds: float, headers: dict[str, str]) -> RunResult | None:
    """Returns the run's result, or None if there is none after `seconds`, or if its agent asks people.

    Raises the run's problem, with the headers, if it failed or was cancelled.
    """
    try:
        return await _await_result_or_question(started, seconds)
    except RunFailedError as failure:
        problem = run_failure(started.run_id, failure.error)
        problem.headers |= headers
        raise problem from failure
    except RunCancelledError as failure:
        detail = "The run was cancelled before it had an answer."
        raise ProblemError(ProblemType.CANCELLED, detail, headers=headers, run_id=started.run_id) from failure
    finally:
        if started.permit is not None:
            started.permit.release()


async def _await_result_or_question(started: StartedRun, seconds: float) -> RunResult | None:
    waiting = asyncio.ensure_future(await_result(started.handle, seconds))
    looking = asyncio.ensure_future(_look_for_questions(started))
    try:
        await asyncio.wait({waiting, looking}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        for one in (waiting, looking):
            one.cancel()


async def _look_for_questions(started: StartedRun) -> None:
    """Returns when the agent asks people. Polls every few seconds: most runs have ended before the first poll."""
    interval = _FIRST_LOOK_SECONDS
    while True:
        await asyncio.sleep(interval)
        interval = min(_MAX_LOOK_SECONDS, 2 * interval)
        with suppress(RPCError):
            if QUESTIONS_MEMO in memo_names(await started.handle.describe()):
                return


def suggest_retry_after(waited_seconds: float) -> str:
    """Returns `Retry-After` for a run that continues: as long as the client has waited already, 1 to 30 s."""
    return str(math.ceil(min(_MAX_RETRY_AFTER, max(1.0, waited_seconds))))
