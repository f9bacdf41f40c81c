"""The objects that pass between workflows and the activities that call agents."""

from datetime import datetime

from contracts.agent import AgentRequest, Reply
from contracts.payload import Payload


class AgentCall(Payload):
    """One call to a named agent. `prior_attempts` counts those made before this activity was scheduled."""

    agent: str
    request: AgentRequest
    deadline: datetime
    prior_attempts: int = 0


class AgentOutcome(Payload):
    """A finished call, and the number of the attempt that finished it."""

    reply: Reply
    attempt: int


class Opening(Payload):
    """What came of a call's first moments: the outcome, or None when it goes on as an activity of its own."""

    outcome: AgentOutcome | None = None


class CancelRequest(Payload):
    """The run whose cancellation was asked for by signal."""

    workflow_id: str
    workflow_run_id: str
