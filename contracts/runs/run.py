"""Runs: input, result, error, status and naming of the workflows."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sevenfold.contracts import workflow_types
from sevenfold.contracts.agents.config import MICRO_USD
from sevenfold.contracts.agents.errors import ErrorCode
from sevenfold.contracts.agents.interface import AgentRequest, Reply, RequestContext, WorkflowTarget
from sevenfold.contracts.agents.usage import ExceededQuota, UsageTotals
from sevenfold.contracts.payload import Payload, Seconds
from sevenfold.contracts.runs.message_runs import ReplyAddress
from sevenfold.contracts.webhooks.delivery import DELIVERY_ATTRIBUTES, DELIVERY_LIST_ATTRIBUTES, Webhook


class Pattern(StrEnum):
    """The integration patterns, with their names on the wire."""

    SYNCHRONOUS = "synchronous"
    QUEUE = "queue"
    POLLING = "polling"
    STREAMING = "streaming"
    WEBHOOK = "webhook"
    EVENT = "event"
    HYBRID = "hybrid"
    # A reaction to an event is a run itself.
    REACTION = "reaction"


WORKFLOW_TYPES = {
    Pattern.SYNCHRONOUS: workflow_types.SYNCHRONOUS_REQUEST,
    Pattern.QUEUE: workflow_types.ASYNCHRONOUS_QUEUE,
    Pattern.POLLING: workflow_types.POLLING,
    Pattern.STREAMING: workflow_types.STREAMING,
    Pattern.WEBHOOK: workflow_types.WEBHOOK_CALLBACK,
    Pattern.EVENT: workflow_types.EVENT_DRIVEN,
    Pattern.HYBRID: workflow_types.HYBRID,
    Pattern.REACTION: workflow_types.EVENT_REACTION,
}
# Other workflow types whose inputs may be stored outside the history: a rejected message, and a semaphore with
# thousands of waiting events.
OTHER_LARGE_TYPES = (workflow_types.REJECTED_EVENT, workflow_types.ORDERING_SEMAPHORE, workflow_types.STREAM_SEGMENT)
# An analysis can be polled, so it shares the prefix `task`.
ID_PREFIXES = {
    Pattern.SYNCHRONOUS: "qry",
    Pattern.QUEUE: "job",
    Pattern.POLLING: "task",
    Pattern.STREAMING: "str",
    Pattern.WEBHOOK: "task",
    Pattern.EVENT: "evt",
    Pattern.HYBRID: "hyb",
    Pattern.REACTION: "rea",
}


def batch_task_queue(task_queue: str) -> str:
    """The task queue of long work, separate from interactive runs."""
    return f"{task_queue}-batch"


def stream_task_queue(task_queue: str) -> str:
    """The task queue of streams, each of which holds a slot while it is read."""
    return f"{task_queue}-streams"


# The memos with the Progress of a run whose agent is a workflow, and with its Waiting, if it waits.
PROGRESS_MEMO, WAITING_MEMO = "progress", "waiting"

# The memos of a job with items: how many there are, and how many have completed and failed.
TOTAL_MEMO, COMPLETED_MEMO, FAILED_MEMO = "total", "completed", "failed"

# The memos with the generation of a redriven run, and with the deadline of every run.
GENERATION_MEMO = "generation"
DEADLINE_MEMO = "deadline"

# Search attributes of runs, for the Temporal UI and `GET /runs`.
RUN_ATTRIBUTES = ("Pattern", "Agent", "Task", "Tenant")
# The key that started a run, for its quotas.
KEY_ATTRIBUTE = "ApiKey"
# Search attributes of events, for `GET /events` and the event budget.
EVENT_ATTRIBUTES = ("EventSource", "CorrelationId")
# All search attributes of the type Keyword, and those of the type KeywordList.
SEARCH_ATTRIBUTES = (*RUN_ATTRIBUTES, KEY_ATTRIBUTE, *DELIVERY_ATTRIBUTES, *EVENT_ATTRIBUTES)
LIST_SEARCH_ATTRIBUTES = DELIVERY_LIST_ATTRIBUTES


class RunStatus(StrEnum):
    """The status values on the wire."""

    QUEUED = "queued"
    PROCESSING = "processing"
    # Its agent has asked, and people have to answer first.
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunLimits(Payload):
    """What one run may use, over all its attempts and items: tokens, and millionths of a US dollar."""

    max_tokens: int | None = None
    max_micro_usd: int | None = None

    def is_reached(self, used: UsageTotals) -> bool:
        """Whether nothing is left."""
        return (self.max_tokens is not None and used.tokens >= self.max_tokens) or (
            self.max_micro_usd is not None and used.micro_usd >= self.max_micro_usd
        )


class RunInput(Payload):
    """Input of a pattern's workflow. `timeout` is the whole run's, in seconds. `target`: the agent is this workflow.
    `publish_interaction`: the run publishes an event when it ends. `generation`: 1, plus 1 for each redrive.
    `key_id`: the key that started the run, for its budget. `reply`: where the outcome goes, if a message started it.
    `earlier_executions`: Temporal's ids of the generations before, whose steps are not executed again.
    `webhook_sequence`: that of their last delivery to a stored endpoint.
    """

    agent: str
    request: AgentRequest
    timeout: Seconds
    request_context: RequestContext = RequestContext()
    target: WorkflowTarget | None = None
    webhook: Webhook | None = None
    publish_interaction: bool = False
    generation: int = 1
    key_id: str | None = None
    limits: RunLimits | None = None
    reply: ReplyAddress | None = None
    earlier_executions: list[str] = []
    webhook_sequence: int = 0


class Waiting(Payload):
    """Why the run does not call its agent at the moment, and when it calls it next."""

    reason: str
    until: datetime | None


class RunResult(Payload):
    """Result of a pattern's workflow. `duration_seconds` is from the run's start to the reply, `last_index` the last
    index that its stream keeps (0: none).
    """

    reply: Reply
    duration_seconds: Seconds
    attempts: int = 1
    last_index: int = 0


class RunError(Payload):
    """Why a run failed. It is also the detail of the Temporal failure that ends the workflow. `usage`: what
    its attempts reported, if they reported anything. `quota`: the one that is used up. `traceback`: of a bug in
    an agent, in development.
    """

    code: ErrorCode
    detail: str
    attempts: int = 1
    retry_after: Seconds | None = None
    pointer: str | None = None
    usage: UsageTotals | None = None
    quota: ExceededQuota | None = None
    traceback: str | None = None


# Grace after the deadline. After it the API reports a run without an answer as failed, and the workflow accepts no
# answer. Both use this value, so that a reported status never changes.
DEADLINE_GRACE = timedelta(seconds=1)


def build_limits(max_tokens: int | None, max_cost: float | None) -> RunLimits | None:
    """Returns the limits of a run, with a cost in US dollars; None without any."""
    if max_tokens is None and max_cost is None:
        return None
    micro_usd = None if max_cost is None else max(1, round(max_cost * MICRO_USD))
    return RunLimits(max_tokens=max_tokens, max_micro_usd=micro_usd)


def compute_deadline(timeout: float) -> str:
    """Returns the deadline of a run that starts now, for its memo (RFC 3339)."""
    return (datetime.now(UTC) + timedelta(seconds=timeout)).isoformat()


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """A run's outcome: a result, an error, or neither if it was cancelled."""

    status: RunStatus
    result: RunResult | None = None
    error: RunError | None = None

    @property
    def last_index(self) -> int | None:
        """The last index that its stream keeps; 0 if it keeps none, None if the run has no result."""
        return self.result.last_index if self.result else None
