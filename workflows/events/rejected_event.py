"""Dead letter of an inbound message that is not a valid event."""

from temporalio import workflow

from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.events.event_driven import RejectedEventInput
from sevenfold.contracts.runs.run import RunError, RunResult
from sevenfold.workflows.runs.failures import to_application_error


@workflow.defn(name=workflow_types.REJECTED_EVENT)
class RejectedEvent:
    """Fails at once, so that the message is listed with the failed workflows; its input holds the message."""

    @workflow.run
    async def run(self, rejected: RejectedEventInput) -> RunResult:
        """Raises ApplicationError with the type `EventRefused` and the reason."""
        raise to_application_error(RunError(code=ErrorCode.EVENT_REFUSED, detail=rejected.rejection.reason))
