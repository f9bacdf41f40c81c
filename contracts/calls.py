"""The objects that pass between workflows and the activities that call agents."""

from datetime import datetime

from contracts.agent import AgentRequest, Origin, Progress, Reply
from contracts.payload import Payload


class AgentCall(Payload):
    """One call to a named agent. `prior_attempts` counts those made before this activity was scheduled, `attempts` is
    how many may be made in all, `streamed` tells that somebody waits for what the agent says while it works.

    `opened`: it is under way in some worker. Where it is not found, that attempt is lost.

    `life`: how often its run was begun. What is said of a later life has ids and indexes of its own.

    `waits`: where the agent may not be called now, since it fails or has as many calls as it may, the call is made
    later; else it fails.
    """

    agent: str
    request: AgentRequest
    deadline: datetime
    origin: Origin = Origin()
    prior_attempts: int = 0
    attempts: int | None = None
    waits: bool = False
    opened: bool = False
    streamed: bool = False
    life: int = 1


class CallHeartbeat(Payload):
    """What the activity `call_agent` heartbeats: how far the agent is, and whether it has ever been `called`.

    `uncounted` are those of Temporal's attempts that are none of the agent's: it was refused a call, or paused.
    """

    progress: Progress | None = None
    uncounted: int = 0
    called: bool = False


class AgentOutcome(Payload):
    """A finished call, the number of the attempt that finished it, and the last index that its stream keeps."""

    reply: Reply
    attempt: int
    last_index: int = 0


class Opening(Payload):
    """What came of a call's first moments: the outcome, or None when it goes on as an activity of its own. `begun`:
    it is under way, and waits to be taken over.
    """

    outcome: AgentOutcome | None = None
    begun: bool = False


class FollowRequest(Payload):
    """The run whose agent somebody wants to hear."""

    run_id: str


class CancelRequest(Payload):
    """The run whose cancellation was asked for by signal."""

    workflow_id: str
    workflow_run_id: str
