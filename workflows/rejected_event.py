"""A dead letter: a message that came in and is no event."""

from temporalio import workflow

from contracts.events import RejectedEventInput
from contracts.runs import RunError, RunResult
from contracts.verdicts import ErrorCode
from workflows.failures import to_application_error


@workflow.defn(name="RejectedEvent")
class RejectedEvent:
    """Fails at once, so that it stands where failures are looked for; its input holds the message."""

    @workflow.run
    async def run(self, rejected: RejectedEventInput) -> RunResult:
        """Raises why it was rejected."""
        raise to_application_error(RunError(code=ErrorCode.EVENT_REFUSED, detail=rejected.rejection.reason))
