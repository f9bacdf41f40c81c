"""A dead letter: a message that came in and is no event."""

from temporalio import workflow

from sevenfold.contracts.events import RejectedEventInput
from sevenfold.contracts.runs import RunError, RunResult
from sevenfold.contracts.verdicts import ErrorCode
from sevenfold.workflows.runs.failures import to_application_error


@workflow.defn(name="RejectedEvent")
class RejectedEvent:
    """Fails at once, so that it stands where failures are looked for; its input holds the message."""

    @workflow.run
    async def run(self, rejected: RejectedEventInput) -> RunResult:
        """Raises why it was rejected."""
        raise to_application_error(RunError(code=ErrorCode.EVENT_REFUSED, detail=rejected.rejection.reason))
