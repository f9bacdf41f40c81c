"""A run: one execution of a pattern, as its workflow takes it and returns it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sevenfold.contracts.agent import AgentRequest, Reply, RequestContext, WorkflowTarget
from sevenfold.contracts.payload import Payload, Seconds
from sevenfold.contracts.verdicts import ErrorCode
from sevenfold.contracts.webhooks import DELIVERY_ATTRIBUTES, Webhook


class Pattern(StrEnum):
    """The integration patterns, by the word that the wire uses for them."""

    SYNCHRONOUS = "synchronous"
    QUEUE = "queue"
    POLLING = "polling"
    STREAMING = "streaming"
    WEBHOOK = "webhook"
    EVENT = "event"
    HYBRID = "hybrid"
    # An event's reactions are runs of agents themselves.
    REACTION = "reaction"


WORKFLOW_TYPES = {
    Pattern.SYNCHRONOUS: "SynchronousRequest",
    Pattern.QUEUE: "AsynchronousQueue",
    Pattern.POLLING: "Polling",
    Pattern.STREAMING: "Streaming",
    Pattern.WEBHOOK: "WebhookCallback",
    Pattern.EVENT: "EventDriven",
    Pattern.HYBRID: "Hybrid",
    Pattern.REACTION: "EventReaction",
}
# Those beside them whose inputs may leave the history: a rejected message, and a lane in which thousands wait.
OTHER_LARGE_TYPES = ("RejectedEvent", "OrderingSemaphore", "StreamSegment")
# A document that is analyzed is a task like any other: it can be polled for too.
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
    """The task queue of long work, beside that of the work somebody waits for."""
    return f"{task_queue}-batch"


def stream_task_queue(task_queue: str) -> str:
    """The task queue of streams, each of which holds its slot for as long as somebody reads."""
    return f"{task_queue}-streams"


# The memo of a run whose agent is a workflow that holds how far it is, its Progress.
PROGRESS_MEMO = "progress"

# The memo of a run that was redriven that holds the number of its life; and that of every run with its deadline.
GENERATION_MEMO = "generation"
DEADLINE_MEMO = "deadline"

# What a person reads and filters by in the Temporal UI, and `GET /runs` in visibility.
RUN_ATTRIBUTES = ("Pattern", "Agent", "Task", "Tenant")
# What events are found by: `GET /events` and the budget of a correlation.
EVENT_ATTRIBUTES = ("EventSource", "CorrelationId")
SEARCH_ATTRIBUTES = (*RUN_ATTRIBUTES, *DELIVERY_ATTRIBUTES, *EVENT_ATTRIBUTES)


class RunStatus(StrEnum):
    """The five status words of the wire."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunInput(Payload):
    """The one object that a pattern's workflow takes. `timeout` is the whole run's, in seconds; `target`: its agent
    is a workflow; `publish_interaction`: publish an event when it ends; `generation`: 1, and one more for each
    redrive.
    """

    agent: str
    request: AgentRequest
    timeout: Seconds
    request_context: RequestContext = RequestContext()
    target: WorkflowTarget | None = None
    webhook: Webhook | None = None
    publish_interaction: bool = False
    generation: int = 1


class RunResult(Payload):
    """The one object that a pattern's workflow returns. `duration_seconds` is from the run's start to its reply,
    `last_index` the last of its stream that is kept (0: nothing is).
    """

    reply: Reply
    duration_seconds: Seconds
    attempts: int = 1
    last_index: int = 0


class RunError(Payload):
    """Why a run failed. Doubles as the detail of the Temporal failure that ends the workflow."""

    code: ErrorCode
    detail: str
    attempts: int = 1
    retry_after: Seconds | None = None
    pointer: str | None = None


# Grace after the deadline. Then the API reports a run without an answer as failed, and the workflow takes no answer
# any more: both use this value, so that a reported status never changes.
DEADLINE_GRACE = timedelta(seconds=1)


def compute_deadline(timeout: float) -> str:
    """The deadline of a run that starts now, for its memo (RFC 3339)."""
    return (datetime.now(UTC) + timedelta(seconds=timeout)).isoformat()


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended: with a result, with an error, or with neither when it was cancelled."""

    status: RunStatus
    result: RunResult | None = None
    error: RunError | None = None

    @property
    def last_index(self) -> int | None:
        """The last index that its stream keeps, where the run knows it; 0 when nothing was kept."""
        return self.result.last_index if self.result else None
