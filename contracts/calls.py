"""The objects that pass between workflows and the activities that call agents."""

from datetime import datetime

from sevenfold.contracts.agent import AgentRequest, Progress, Reply, RequestContext
from sevenfold.contracts.payload import Payload


class AgentCall(Payload):
    """One call to a named agent. `prior_attempts` counts those made before this activity was scheduled,
    `max_attempts` is how many may be made in all, `is_streamed` tells that somebody waits for what the agent says
    while it works.

    `started_inline`: it is under way in some worker. Where it is not found, that attempt is lost.

    `generation`: how often its run was begun. What is said of a later life has ids and indexes of its own.

    `waits_for_capacity`: where the agent may not be called now, since it fails or has as many calls as it may, the
    call is made later; else it fails.
    """

    agent: str
    request: AgentRequest
    deadline: datetime
    request_context: RequestContext = RequestContext()
    prior_attempts: int = 0
    max_attempts: int | None = None
    waits_for_capacity: bool = False
    started_inline: bool = False
    is_streamed: bool = False
    generation: int = 1


class CallHeartbeat(Payload):
    """What the activity `call_agent` heartbeats: how far the agent is, and whether it has ever been `agent_called`.

    `skipped_attempts` are those of Temporal's attempts that are none of the agent's: it was refused a call, or
    paused.
    """

    progress: Progress | None = None
    skipped_attempts: int = 0
    agent_called: bool = False


class AgentOutcome(Payload):
    """A finished call, the number of the attempt that finished it, and the last index that its stream keeps."""

    reply: Reply
    attempt: int
    last_index: int = 0


class InlineStart(Payload):
    """What came of a call's first moments: the outcome, or None when it goes on as an activity of its own.
    `is_running`: it is under way, and waits to be taken over.
    """

    outcome: AgentOutcome | None = None
    is_running: bool = False


class PublishStreamInput(Payload):
    """The run whose agent somebody wants to hear."""

    run_id: str


class CancelRequest(Payload):
    """The run whose cancellation was asked for by signal."""

    workflow_id: str
    workflow_run_id: str
