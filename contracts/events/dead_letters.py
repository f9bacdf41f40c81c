"""Dead letters of events: workflows that ended without success."""

from enum import StrEnum

from sevenfold.contracts import workflow_types


class LetterKind(StrEnum):
    """`rejected`: the message was not accepted as an event. `event`: the event was refused, or a broker did not take
    it. `reaction`: the agent of a reaction failed for good.
    """

    REJECTED = "rejected"
    EVENT = "event"
    REACTION = "reaction"


LETTER_WORKFLOW_TYPES = {
    LetterKind.REJECTED: workflow_types.REJECTED_EVENT,
    LetterKind.EVENT: workflow_types.EVENT_DRIVEN,
    LetterKind.REACTION: workflow_types.EVENT_REACTION,
}

# A condition of a visibility query.
IS_DEAD = "ExecutionStatus IN ('Failed', 'TimedOut', 'Terminated')"
