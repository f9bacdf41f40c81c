"""The objects that pass between workflows and the activities that call agents."""

from datetime import datetime

from sevenfold.contracts.agents.interface import AgentRequest, Progress, Reply, RequestContext, Usage
from sevenfold.contracts.agents.questions import Answer, Question
from sevenfold.contracts.agents.steps import RunningStep, StreamMark
from sevenfold.contracts.agents.usage import NO_USAGE, UsageTotals
from sevenfold.contracts.payload import Payload
from sevenfold.contracts.runs.run import RunLimits


class AgentCall(Payload):
    """One call of a named agent. `prior_attempts` counts the attempts before this activity was scheduled,
    `max_attempts` limits all attempts (None: no limit), `is_streamed` states that readers wait for the stream.

    `started_inline`: a worker has started the call inline. If the activity does not find that call, the attempt is
    lost and counts.

    `generation`: 1, plus 1 for each redrive of the run. Streams of a later generation have their own indexes.

    `waits_for_capacity`: if the circuit is open or the limits are used up, the call is retried later; otherwise it
    fails.

    `progress_workflow_id`: the workflow that takes the agent's progress by the signal `progress`, for webhooks.

    `key_id`: the key that started the run. `prior_usage`: what earlier attempts, outside of this activity, have used.

    `answers`: to the questions of earlier turns. `mark`: the text of the turn before, which readers have.
    `earlier_executions`: as those of the run.
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
    progress_workflow_id: str | None = None
    key_id: str | None = None
    limits: RunLimits | None = None
    prior_usage: UsageTotals = NO_USAGE
    answers: dict[str, Answer] = {}
    mark: StreamMark | None = None
    earlier_executions: list[str] = []


class CallHeartbeat(Payload):
    """Heartbeat details of `call_agent`: the progress, and whether the agent was ever called. `skipped_attempts`
    counts Temporal's attempts that did not call the agent: admission was refused, or the activity was paused.
    `usage`: what all attempts of the run have used so far. `steps`: those that are executed now.
    """

    progress: Progress | None = None
    skipped_attempts: int = 0
    agent_called: bool = False
    usage: UsageTotals = NO_USAGE
    steps: list[RunningStep] = []


class AgentOutcome(Payload):
    """A finished call, how many attempts it took, and the last index that its stream keeps.

    Without a reply it has `questions`, which have to be answered first; then `mark` is how far its text was, and
    `usage` what the run has used.
    """

    reply: Reply | None
    attempts: int
    last_index: int = 0
    questions: list[Question] = []
    mark: StreamMark | None = None
    usage: UsageTotals = NO_USAGE


class InlineStart(Payload):
    """Result of starting a call inline: the outcome, or None when the call continues as an activity. `is_running`:
    the call is running and parked for adoption.
    """

    outcome: AgentOutcome | None = None
    is_running: bool = False


class PublishStreamInput(Payload):
    """The run whose stream is followed."""

    run_id: str


class BudgetCheck(Payload):
    """Asks whether an attempt of a run may be made. `key_id`: the key that started the run."""

    key_id: str | None


class LimitCheck(Payload):
    """Asks whether a run may use more. `usage`: what its attempts have reported so far."""

    agent: str
    limits: RunLimits
    attempts: int
    usage: Usage


class WorkflowAgentUsage(Payload):
    """An attempt of a workflow agent that has ended, and what it reported."""

    agent: str
    key_id: str | None
    attempt: int
    has_failed: bool
    usage: Usage = Usage()


class CancelRequest(Payload):
    """The run whose cancellation was requested by signal."""

    workflow_id: str
    workflow_run_id: str
