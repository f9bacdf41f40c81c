"""A dead letter: a message that came in and is no event."""

from temporalio import workflow

from contracts.events import RejectedInput
from contracts.runs import RunError, RunResult
from contracts.verdicts import Verdict
from workflows.failures import failure_of


@workflow.defn
class RejectedEvent:
    """Fails at once, so that it stands where failures are looked for; its input holds the message."""

    @workflow.run
    async def run(self, rejected: RejectedInput) -> RunResult:
        """Raises why it was rejected."""
        raise failure_of(RunError(verdict=Verdict.EVENT_REFUSED, detail=rejected.rejection.reason))
